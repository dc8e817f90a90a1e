import { setTimeout as delay } from 'node:timers/promises';
import { type Entry, Ledger } from './ledger.ts';
import { type Answer, type Outcome, RawClient } from './raw-client.ts';

export interface Asked {
  /** Default `/`; a function is given the number of the request, from 0. */
  readonly path?: string | ((number: number) => string);
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

export interface LoadOptions extends Asked {
  /** On 127.0.0.1; a load goes nowhere else. */
  readonly port: number;
  /** Connections at a time, each with one request at a time. */
  readonly connections: number;
  /** What is asked for in turn, where it is not the same each time. */
  readonly turns?: readonly Asked[];
  /** What is asked for where no two requests are the same. Numbers are from 0. */
  readonly each?: (number: number) => Asked;
  /** How long one request may take before it is given up as lost. Default 5,000. */
  readonly timeoutMs?: number;
  /**
   * Open loop: so many requests fall due a second, whether or not the ones before are answered. Without it the loop
   * is closed: each connection sends its next request when the last one is answered.
   */
  readonly perSecond?: number;
  /** Whether a request is dropped whose connection is refused. Otherwise it is tried again, and waits meanwhile. */
  readonly dropRefused?: boolean;
  /** Whether what was refused with `fail_safe: true`, or has crossed with the end of a kept connection, is sent again. */
  readonly resend?: boolean;
  /** Sees every answer. */
  readonly onAnswer?: (answer: Answer, entry: Entry) => void;
}

/** Time before a connection that was refused is tried again. Without it a closed loop turns hot. */
const RETRY_MS = 20;
const PACE_MS = 1;
/** How long answers may take that a caller waits for. */
const PATIENCE_MS = 60_000;

/**
 * A load of HTTP requests that accounts for each of them: answered, or lost and how. Connections are kept alive and
 * opened anew when the server has said `Connection: close`, at once, as well-behaved clients do.
 */
export class LedgerClient {
  readonly ledger = new Ledger();
  readonly #options: LoadOptions;
  readonly #bytes: (number: number) => Buffer;
  readonly #timeoutMs: number;
  readonly #over: Promise<unknown>;
  /** When each request was due that no connection has taken yet. */
  readonly #backlog: number[] = [];
  /** Connections that wait for the next request to fall due. */
  readonly #idle: ((dueMs: number | undefined) => void)[] = [];
  readonly #watching = new Set<() => void>();
  readonly #counts = new Map<number, number>();
  #pacer: NodeJS.Timeout | undefined;
  #stopping = false;

  private constructor(options: LoadOptions) {
    this.#options = options;
    this.#timeoutMs = options.timeoutMs ?? 5_000;
    const { each } = options;
    const turns = (options.turns ?? [options]).map(bytesOf);
    this.#bytes = (number) => {
      const bytes = each === undefined ? turns[number % turns.length] : bytesOf(each(number));
      return (bytes as (typeof turns)[number])(number);
    };
    this.#over = Promise.all(Array.from({ length: options.connections }, () => this.#line()));
    if (options.perSecond !== undefined) this.#pace(options.perSecond);
  }

  static start(options: LoadOptions): LedgerClient {
    return new LedgerClient(options);
  }

  /**
   * Sends one request on a connection of its own.
   * @throws Error when the connection is refused
   */
  static async once(options: Omit<LoadOptions, 'connections' | 'perSecond'>): Promise<Entry> {
    const client = new LedgerClient({ ...options, connections: 1, dropRefused: true });
    await client.#until(({ sent, refusals }) => sent + refusals.length > 0);
    const { entries, refused } = await client.stop();
    const [entry] = entries;
    if (entry === undefined) throw new Error(`no connection: ${[...refused.keys()]}`);
    return entry;
  }

  /** Resolves when so many more requests have been answered with this status. @throws Error when that takes too long */
  async answered(status: number, more: number): Promise<void> {
    const count = (): number => this.#counts.get(status) ?? 0;
    const goal = count() + more;
    await this.#until(() => count() >= goal);
  }

  /** Sends nothing more, waits for every answer that is due, and closes. @returns the ledger, reconciled */
  async stop(): Promise<Ledger> {
    this.#stopping = true;
    clearInterval(this.#pacer);
    for (const wake of this.#idle.splice(0)) wake(undefined);
    await this.#over;
    this.ledger.unsent += this.#backlog.splice(0).length;
    return this.ledger.reconcile();
  }

  #pace(perSecond: number): void {
    const startedMs = performance.now();
    let fallen = 0;
    this.#pacer = setInterval(() => {
      const due = ((performance.now() - startedMs) / 1000) * perSecond;
      for (; fallen < due; fallen += 1) this.#backlog.push(startedMs + (fallen / perSecond) * 1000);
      while (this.#backlog.length > 0 && this.#idle.length > 0) this.#idle.shift()?.(this.#backlog.shift());
    }, PACE_MS);
  }

  /** When the next request was due that a connection may send; undefined when there will be none. */
  async #due(): Promise<number | undefined> {
    if (this.#stopping) return undefined;
    if (this.#options.perSecond === undefined) return performance.now();
    return this.#backlog.shift() ?? new Promise((resolve) => this.#idle.push(resolve));
  }

  /** One client: a connection at a time, a request at a time. */
  async #line(): Promise<void> {
    let client: RawClient | undefined;
    for (let dueMs = await this.#due(); dueMs !== undefined; dueMs = await this.#due()) {
      client = await this.#ask(client, dueMs);
    }
    client?.destroy();
  }

  /** @returns the connection, if it can be used again */
  async #ask(kept: RawClient | undefined, dueMs: number): Promise<RawClient | undefined> {
    let client = kept;
    let entry: Entry | undefined;
    for (;;) {
      const reused = client !== undefined && client.end === undefined;
      if (!reused) client = await this.#connect(dueMs, entry !== undefined);
      if (client === undefined) return undefined;
      entry ??= this.#begin(dueMs);
      client.write(this.#bytes(entry.number));
      const head = this.#options.method === 'HEAD';
      const outcome = await client.answer({ head, ms: this.#timeoutMs });
      const last = outcome.status === undefined || closes(outcome) || client.end !== undefined;
      // Nothing may be sent behind an answer that ends the connection.
      if (outcome.status === undefined) client.destroy();
      else if (last) client.socket.end();
      if (this.#options.resend && maySendAgain(outcome, reused && client.pending === '')) {
        this.ledger.resent += 1;
        client = last ? undefined : client;
        continue;
      }
      this.#conclude(entry, outcome);
      if (outcome.status === undefined) await this.#pause();
      return last ? undefined : client;
    }
  }

  /** A new connection; undefined when none is to be had. `begun`: the request was sent before, and has to end. */
  async #connect(dueMs: number, begun: boolean): Promise<RawClient | undefined> {
    for (;;) {
      const client = await new RawClient(this.#options.port, { halfOpen: false }).connected(this.#timeoutMs);
      if (client.isConnected) this.ledger.connections += 1;
      else this.ledger.refusals.push({ dueMs, how: client.end ?? 'timeout' });
      this.#changed();
      if (begun || (client.isConnected && !this.#stopping)) return client;
      client.destroy();
      if (this.#stopping) this.ledger.unsent += 1;
      if (this.#stopping || (!client.isConnected && this.#options.dropRefused)) return undefined;
      await this.#pause();
    }
  }

  #begin(dueMs: number): Entry {
    const { entries, sent } = this.ledger;
    const times = { dueMs, sentMs: performance.now(), endedMs: undefined };
    const entry: Entry = { number: sent, ...times, status: undefined, lost: undefined };
    entries.push(entry);
    this.#changed();
    return entry;
  }

  #conclude(entry: Entry, outcome: Outcome): void {
    entry.endedMs = performance.now();
    if (outcome.status === undefined) entry.lost = outcome.how;
    else {
      entry.status = outcome.status;
      this.#counts.set(outcome.status, (this.#counts.get(outcome.status) ?? 0) + 1);
      this.#options.onAnswer?.(outcome, entry);
    }
    this.#changed();
  }

  /** A load that drops what is refused is no hot loop: it goes on with what falls due. */
  async #pause(): Promise<void> {
    if (!this.#stopping && !this.#options.dropRefused) await delay(RETRY_MS);
  }

  #until(reached: (ledger: Ledger) => boolean): Promise<void> {
    if (reached(this.ledger)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const done = (settle: () => void): void => {
        clearTimeout(timer);
        this.#watching.delete(look);
        settle();
      };
      const look = (): void => {
        if (reached(this.ledger)) done(resolve);
      };
      const late = (): void => reject(new Error(`not within ${PATIENCE_MS / 1000} s: ${this.ledger}`));
      const timer = setTimeout(() => done(late), PATIENCE_MS);
      this.#watching.add(look);
    });
  }

  #changed(): void {
    for (const look of [...this.#watching]) look();
  }
}

function closes({ headers }: Answer): boolean {
  return headers.connection?.toLowerCase() === 'close';
}

/** @param crossed whether nothing has come on a connection that was kept */
function maySendAgain(outcome: Outcome, crossed: boolean): boolean {
  if (outcome.status === undefined) return crossed && outcome.how !== 'timeout';
  return outcome.status === 503 && outcome.body.includes('"fail_safe":true');
}

function bytesOf({ path = '/', method = 'GET', headers = {}, body }: Asked): (number: number) => Buffer {
  const payload = Buffer.from(body ?? '');
  const fields = { Host: '127.0.0.1', ...headers, ...(body && { 'Content-Length': payload.length }) };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  const request = (target: string): Buffer =>
    Buffer.concat([Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines.join('')}\r\n`), payload]);
  if (typeof path === 'function') return (number) => request(path(number));
  const bytes = request(path);
  return () => bytes;
}
