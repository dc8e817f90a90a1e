import type { ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Logger } from 'pino';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import { plural } from '../plural.ts';
import type { Connection, Connections } from './connections.ts';
import type { InFlight } from './in-flight.ts';
import type { RequestAudit } from './request-audit.ts';
import { newId } from './request-id.ts';
import { errorBody } from './response.ts';

export type RefusalReason = 'starting' | 'stopping' | 'overloaded';

/** How long refusals are counted before one line in the log sums them up. */
const SUMMARY_MS = 1_000;

const MESSAGES: Readonly<Record<RefusalReason, string>> = {
  starting: 'Service is starting. Please try again later.',
  stopping: 'Service is shutting down. Please try again later.',
  overloaded: 'Service is overloaded. Please try again later.',
};

export interface GateSettings {
  /** Answer 503 to what comes while stopping; false lets it in, on connections that are open. */
  readonly enableFailSafe: boolean;
  /** Requests in flight past which new ones are refused; 0 for no limit. */
  readonly maxInFlight: number;
  /** Unanswered requests on one connection past which it is not read. */
  readonly maxPipelined: number;
  /** Seconds, for `Retry-After`. */
  readonly retryAfter: number;
}

/** A 503, made once as bytes: refusing a flood must cost as little as can be. */
class Refusal {
  readonly #body: Buffer;
  readonly #headers: string[];

  constructor(reason: RefusalReason, retryAfter: number) {
    this.#body = Buffer.from(
      JSON.stringify({
        ...errorBody(503, MESSAGES[reason]),
        service_state: reason === 'overloaded' ? 'running' : reason,
        fail_safe: reason !== 'overloaded',
      }),
    );
    this.#headers = [
      ...['Content-Type', 'application/json; charset=utf-8'],
      ...['Content-Length', String(this.#body.length)],
      ...['Retry-After', String(retryAfter)],
      ...['Cache-Control', 'no-store'],
    ];
  }

  write(response: ServerResponse, last: boolean): void {
    response.writeHead(503, last ? [...this.#headers, 'Connection', 'close'] : this.#headers);
    response.end(this.#body);
  }

  /** The same on a connection where no request is complete that node:http could answer. */
  raw(id: string): string {
    const lines = ['HTTP/1.1 503 Service Unavailable', `X-Request-Id: ${id}`];
    for (let index = 0; index < this.#headers.length; index += 2) {
      lines.push(`${this.#headers[index]}: ${this.#headers[index + 1]}`);
    }
    return `${lines.join('\r\n')}\r\nDate: ${new Date().toUTCString()}\r\nConnection: close\r\n\r\n${this.#body}`;
  }
}

/** The lock. Admits a request and counts it in one synchronous step, or refuses it before anything was done for it. */
export class Gate {
  readonly #lifecycle: Lifecycle;
  readonly #inFlight: InFlight;
  readonly #connections: Connections;
  readonly #log: Logger;
  readonly #requestAudit: RequestAudit;
  readonly #isServed: () => boolean;
  readonly #counts: Record<RefusalReason, number> = { starting: 0, stopping: 0, overloaded: 0 };
  #settings: GateSettings;
  #refusals: Record<RefusalReason, Refusal>;
  #holding = false;
  readonly #unreported = new Map<RefusalReason, number>();
  #summary: NodeJS.Timeout | undefined;

  constructor(
    parts: {
      lifecycle: Lifecycle;
      inFlight: InFlight;
      connections: Connections;
      log: Logger;
      requestAudit: RequestAudit;
      /** Whether there is anything that could serve a request; where it is another process it may be gone. */
      isServed?: (() => boolean) | undefined;
    },
    settings: GateSettings,
  ) {
    this.#lifecycle = parts.lifecycle;
    this.#inFlight = parts.inFlight;
    this.#connections = parts.connections;
    this.#log = parts.log;
    this.#requestAudit = parts.requestAudit;
    this.#isServed = parts.isServed ?? (() => true);
    this.#settings = settings;
    this.#refusals = refusalsFor(settings);
  }

  configure(settings: GateSettings): void {
    this.#settings = settings;
    this.#refusals = refusalsFor(settings);
  }

  /** Requests refused since the start, by reason. */
  get refused(): Readonly<Record<RefusalReason, number>> {
    return this.#counts;
  }

  get maxPipelined(): number {
    return this.#settings.maxPipelined;
  }

  /** Whether the state alone keeps requests out, without regard to the load or to what serves. */
  get isLocked(): boolean {
    return this.#lockedBecause() !== undefined;
  }

  /** Answers a request that was admitted, and that nothing has seen behind the gate, as if it had been refused. */
  refuseAdmitted(response: ServerResponse): void {
    this.#refusals.starting.write(response, false);
  }

  /** The same for an upgrade, whose connection node:http has let go of. */
  refuseAdmittedRaw(stream: Duplex, id: string): void {
    stream.write(this.#refusals.starting.raw(id));
  }

  /** Admits one request: counted before anything is awaited, so a drain cannot miss it. False means: refuse it. */
  admit(): boolean {
    if (this.#closedBecause() !== undefined) return false;
    this.#inFlight.add();
    return true;
  }

  /** Answers a request that was not admitted with 503, in its turn on its connection. It is never dispatched. */
  refuse(connection: Connection, response: ServerResponse): RefusalReason {
    const reason = this.#closedBecause() ?? 'stopping';
    this.#count(reason);
    if (!this.isLocked) {
      connection.noteRefused();
      this.#refusals[reason].write(response, false);
      return reason;
    }
    const isFirst = connection.addRefused(response);
    connection.announceClose();
    // The parser runs through all that came in one read before it yields: wait for that, so that of several
    // pipelined requests only the last is told that the connection closes.
    if (isFirst) process.nextTick(() => this.answer(connection));
    return reason;
  }

  /** Answers what is refused on this connection, if its turn has come and the gate does not hold its answers. */
  answer(connection: Connection): void {
    if (!this.#holding) this.answerHeld(connection);
  }

  /** Answers what is refused on this connection, if its turn has come, without regard to the hold. */
  answerHeld(connection: Connection): void {
    const refusal = this.#refusals[this.#lifecycle.state === 'starting' ? 'starting' : 'stopping'];
    const responses = connection.takeRefused();
    for (const [index, response] of responses.entries()) {
      refusal.write(response, index === responses.length - 1 && connection.endsWithLatest);
    }
  }

  /** Keeps refusals back: a client that waits for an answer opens no new connection. */
  hold(): void {
    this.#holding = true;
  }

  release(): void {
    this.#holding = false;
    for (const connection of this.#connections) this.answer(connection);
  }

  /** Refuses what node:http cannot answer: a request of which only a part has come, or one that is ambiguous. */
  refuseRaw(connection: Connection, id = newId()): void {
    const reason = this.#lifecycle.state === 'starting' ? 'starting' : 'stopping';
    this.#count(reason);
    connection.socket.write(this.#refusals[reason].raw(id));
  }

  /** Writes the summary that is due, now. */
  flushSummary(): void {
    clearTimeout(this.#summary);
    this.#summary = undefined;
    for (const [reason, count] of this.#unreported) {
      this.#log.warn({ refused: count }, `Refused ${plural(count, 'request')}: ${reason}`);
      this.#requestAudit.refused(count);
    }
    this.#unreported.clear();
  }

  #lockedBecause(): 'starting' | 'stopping' | undefined {
    const { state } = this.#lifecycle;
    if (state === 'running') return undefined;
    if (state === 'starting') return 'starting';
    return this.#settings.enableFailSafe || state === 'stopped' ? 'stopping' : undefined;
  }

  #closedBecause(): RefusalReason | undefined {
    const locked = this.#lockedBecause();
    if (locked !== undefined) return locked;
    if (!this.#isServed()) return 'starting';
    const { maxInFlight } = this.#settings;
    return maxInFlight > 0 && this.#inFlight.count >= maxInFlight ? 'overloaded' : undefined;
  }

  #count(reason: RefusalReason): void {
    this.#counts[reason] += 1;
    this.#unreported.set(reason, (this.#unreported.get(reason) ?? 0) + 1);
    this.#summary ??= setTimeout(() => this.flushSummary(), SUMMARY_MS).unref();
  }
}

function refusalsFor({ retryAfter }: GateSettings): Record<RefusalReason, Refusal> {
  return {
    starting: new Refusal('starting', retryAfter),
    stopping: new Refusal('stopping', retryAfter),
    overloaded: new Refusal('overloaded', retryAfter),
  };
}
