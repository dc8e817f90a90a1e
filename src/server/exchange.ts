import type { IncomingMessage, ServerResponse } from 'node:http';
// The global of the same name is a getter, which costs as much again as the clock.
import { performance } from 'node:perf_hooks';
import type { Duplex } from 'node:stream';
import type { Logger } from 'pino';
import { messageOf } from '../error.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import type { Context } from './context.ts';
import type { InFlight } from './in-flight.ts';
import { nextNumber, ownId } from './request-id.ts';
import { HttpError, sendError } from './response.ts';
import type { OnStop, Route, RouteMatch, UpgradeHandler } from './router.ts';
import { traceIdOf } from './trace.ts';
import type { TrustedProxies } from './trusted-proxies.ts';

/**
 * Where a request is between its admission and its end. `open`: the handler may still answer. `answered`: it has ended
 * its answer, which may be held back until it is on record. `cut`: the service has ended the connection. `closed`: it has
 * done so because the route is one that a stop closes. `ended`: the response or the connection is closed.
 */
type State = 'open' | 'answered' | 'cut' | 'closed' | 'ended';

/** How an exchange ended: answered whole, left by the client, cut by the service, or closed by a stop as its route says. */
export type Outcome = 'completed' | 'aborted' | 'cut' | 'closed';

/**
 * What an exchange is doing. `receiving`: the handler waits for the body. `working`: it has what it needs.
 * `sending`: the answer is ended but not yet handed to the kernel. `upgraded`: the connection speaks another protocol.
 */
export type Phase = 'receiving' | 'working' | 'sending' | 'upgraded';

/** What all exchanges of one service have in common. */
export interface ServerContext {
  readonly lifecycle: Lifecycle;
  readonly inFlight: InFlight;
  readonly log: Logger;
  readonly proxies: TrustedProxies;
  /** Remembers each request where it can be read when this process no longer answers. */
  readonly recorder?:
    | {
        /** @returns the request's place, for `end` */
        begin(request: Pick<Exchange, 'number' | 'givenId' | 'method' | 'url' | 'startedMs'>): number;
        end(place: number): void;
      }
    | undefined;
}

/** What only some exchanges need. Few fields make an exchange cheap. */
interface Extras {
  log?: Logger;
  gone?: AbortController;
  told?: AbortController;
  inFlight?: InFlight;
  params?: Readonly<Record<string, string>>;
  query?: URLSearchParams;
  fields?: Readonly<Record<string, unknown>>;
  fieldsText?: string;
}

/** Of the handler's own fields in the audit log. */
const MOST_AUDIT_CHARACTERS = 8 * 1024;

/** One admitted request, from admission until its response is closed. */
export class Exchange implements Context {
  readonly request: IncomingMessage;
  /** Undefined once the connection was taken over by an upgrade. */
  readonly response: ServerResponse | undefined;
  readonly method: string;
  /** The target as it came. A mounted application rewrites `request.url`; this stays. */
  readonly url: string;
  /** Monotonic milliseconds. */
  readonly startedMs = performance.now();
  readonly client: string;
  /** From 1 on, in this process. */
  readonly number = nextNumber();
  /** An id that a trusted proxy has given; it may give several requests the same. */
  readonly givenId: string | undefined;
  readonly id: string;
  /** The one behind it on its connection; set by that. */
  next: Exchange | undefined = undefined;
  /** In strict mode: its whole answer was put on record before it left. */
  isOnRecord = false;
  readonly #context: ServerContext;
  /** Where the recorder remembers it, if there is one. */
  readonly #place: number;
  #state: State = 'open';
  #match: RouteMatch | RouteMatch<UpgradeHandler> | undefined = undefined;
  #upgradeStatus = 101;
  #extras: Extras | undefined = undefined;

  /** @param peer the address at the other end of the connection */
  constructor(
    request: IncomingMessage,
    response: ServerResponse | undefined,
    peer: string,
    context: ServerContext,
  ) {
    this.request = request;
    this.response = response;
    this.method = request.method ?? '';
    this.url = request.url ?? '';
    this.client = context.proxies.clientOf(peer, request);
    this.givenId = context.proxies.idOf(peer, request);
    this.id = this.givenId ?? ownId(this.number);
    this.#context = context;
    this.#place = context.recorder === undefined ? 0 : context.recorder.begin(this);
  }

  get #made(): Extras {
    this.#extras ??= {};
    return this.#extras;
  }

  get #route(): Route | Route<UpgradeHandler> | undefined {
    return this.#match?.route;
  }

  /** The target without the query, whose values may be private. */
  get path(): string {
    const query = this.url.indexOf('?');
    return query === -1 ? this.url : this.url.slice(0, query);
  }

  get params(): Readonly<Record<string, string>> {
    const { route, values = [] } = this.#match ?? {};
    this.#made.params ??= Object.fromEntries(
      (route?.names ?? []).map((name, index) => [name, values[index] ?? '']),
    );
    return this.#made.params;
  }

  get query(): URLSearchParams {
    this.#made.query ??= new URLSearchParams(this.url.slice(this.path.length + 1));
    return this.#made.query;
  }

  get log(): Logger {
    // pino leaves out what is undefined.
    this.#made.log ??= this.#context.log.child({ request: this.id, trace: this.trace });
    return this.#made.log;
  }

  get trace(): string | undefined {
    return traceIdOf(this.request.headers.traceparent);
  }

  get signal(): AbortSignal {
    const made = this.#made;
    if (made.gone === undefined) {
      made.gone = new AbortController();
      // Asked for when it is too late: a handler that has waited for something else first.
      if (this.isLost && this.response?.writableFinished !== true)
        made.gone.abort(new Error('the request has ended without an answer'));
    }
    return made.gone.signal;
  }

  get stopping(): AbortSignal {
    return this.onStop === 'tell' ? this.#told.signal : this.#context.lifecycle.stopping;
  }

  get #told(): AbortController {
    this.#made.told ??= new AbortController();
    return this.#made.told;
  }

  /** The pattern of its route; undefined where there is none, or only an application's own server knows it. */
  get pattern(): string | undefined {
    // A pattern begins with a slash; what answers where there is none has a name instead.
    const pattern = this.#route?.pattern;
    return pattern?.startsWith('/') === true ? pattern : undefined;
  }

  /** What a stop means for it, as its route says. */
  get onStop(): OnStop {
    return this.#route?.onStop ?? 'finish';
  }

  get deadline(): number | undefined {
    const order = this.#context.lifecycle.order;
    return order === undefined ? undefined : Math.max(0, order.deadlineMs - performance.now());
  }

  /** What its handler has entered last by name, and not left. */
  get hold(): string | undefined {
    return this.#extras?.inFlight?.holds.at(-1)?.name;
  }

  get inFlight(): InFlight {
    this.#made.inFlight ??= this.#context.inFlight.of(this.id);
    return this.#made.inFlight;
  }

  audit(fields: Readonly<Record<string, unknown>>): void {
    const all = { ...this.#extras?.fields, ...fields };
    // Written out now: what the handler does to its objects later is not what it has put on record.
    const text = JSON.stringify(all);
    if (text.length > MOST_AUDIT_CHARACTERS) {
      throw new RangeError(
        `audit: want at most ${MOST_AUDIT_CHARACTERS} characters of JSON, got ${text.length}`,
      );
    }
    this.#made.fields = all;
    this.#made.fieldsText = text;
  }

  /** The handler's own fields of the record, as JSON. */
  get auditText(): string | undefined {
    return this.#extras?.fieldsText;
  }

  get ageMs(): number {
    return performance.now() - this.startedMs;
  }

  /** The answer's status code; 0 while there is none, for an upgrade 101 or what it was refused with. */
  get status(): number {
    const { response } = this;
    if (response === undefined) return this.#upgradeStatus;
    return response.headersSent ? response.statusCode : 0;
  }

  get phase(): Phase {
    const { request, response } = this;
    if (response === undefined) return 'upgraded';
    if (response.writableEnded || this.#state === 'answered') return 'sending';
    return !request.complete && isWaiting(request) ? 'receiving' : 'working';
  }

  /** Runs the handler. Whatever it throws or rejects with becomes an answer, or the end of the connection. */
  run(match: RouteMatch, response: ServerResponse, handler = match.route.handler): void {
    this.#match = match;
    if (this.#isLate) this.stop();
    if (this.#state === 'closed') return;
    try {
      const result = handler(this.request, response, this);
      if (isThenable(result)) result.then(undefined, (error: unknown) => this.fail(error));
    } catch (error) {
      this.fail(error);
    }
  }

  /** Its route is known only now: an application's own server finds it by itself. */
  label(match: RouteMatch): void {
    this.#match = match;
  }

  /** Hands the connection to the taker of an upgrade. */
  async runUpgrade(match: RouteMatch<UpgradeHandler>, socket: Duplex, head: Buffer): Promise<void> {
    this.#match = match;
    if (this.#isLate) this.stop();
    if (this.#state === 'closed') return;
    try {
      await match.route.handler(this.request, socket, head, this);
    } catch (error) {
      this.log.error({ err: error }, `Handler of upgrade ${match.route.pattern} failed: ${messageOf(error)}`);
      socket.destroy();
    }
  }

  /** Whether the lock was before its route was known: at the lock it could not be stopped as that says. */
  get #isLate(): boolean {
    return this.onStop !== 'finish' && this.#context.lifecycle.stopping.aborted;
  }

  /** The service stops, and it is this one's turn to hear of it. */
  stop(): void {
    if (this.onStop === 'tell') this.#told.abort(this.#context.lifecycle.stopping.reason);
    else if (this.onStop === 'close')
      this.#endBy('closed', 'the service stops, and the route is closed then');
  }

  /** The handler has ended its answer. */
  answer(): void {
    if (this.#state === 'open') this.#state = 'answered';
  }

  /** What the handler has answered with cannot be sent: it is to be answered in another way. */
  reopen(): void {
    if (this.#state === 'answered') this.#state = 'open';
  }

  /** Whether nothing of its answer will leave any more. */
  get isLost(): boolean {
    return this.#state === 'cut' || this.#state === 'closed' || this.#state === 'ended';
  }

  /** The taker of the upgrade has written an answer by hand, which may be a refusal. */
  answerUpgrade(status: number): void {
    this.#upgradeStatus = status;
  }

  /** What was to answer it is gone. The answer that says so may still leave, but its outcome is `cut`. */
  lose(): void {
    if (this.#state !== 'ended') this.#state = 'cut';
  }

  /** The deadline is over: the handler learns through its signal, the client through the end of the connection. */
  cut(): void {
    this.#endBy('cut', 'the request was cut: the service had to stop');
  }

  #endBy(state: 'cut' | 'closed', why: string): void {
    if (this.#state !== 'ended' && this.response?.writableFinished !== true) this.#state = state;
    this.#extras?.gone?.abort(new Error(why));
    this.request.socket.destroy();
  }

  /** The response, or the socket, is closed. Undefined when it had ended before. */
  end(nowMs = performance.now()): Outcome | undefined {
    if (this.#state === 'ended') return undefined;
    const { response } = this;
    // A handler may write a whole answer when it learns of the cut, but no client is left to read it.
    const isWhole = response === undefined || response.writableFinished;
    const byClient = isWhole ? 'completed' : 'aborted';
    const outcome: Outcome = this.#state === 'cut' || this.#state === 'closed' ? this.#state : byClient;
    this.#state = 'ended';
    if (outcome === 'aborted') this.#extras?.gone?.abort(new Error('the client is gone'));
    this.#route?.tally.count(this.status, nowMs - this.startedMs);
    this.#context.recorder?.end(this.#place);
    this.#context.inFlight.leave();
    return outcome;
  }

  fail(error: unknown): void {
    const response = this.response as ServerResponse;
    const known = error instanceof HttpError;
    if (!known && !this.#extras?.gone?.signal.aborted) {
      this.log.error(
        { err: error },
        `Handler of ${this.method} ${this.#route?.pattern} failed: ${messageOf(error)}`,
      );
    }
    if (response.destroyed || response.writableEnded || this.#state !== 'open') return;
    if (response.headersSent) {
      // Half an answer must not look like a whole one.
      response.destroy();
      return;
    }
    for (const name of response.getHeaderNames()) if (name !== 'connection') response.removeHeader(name);
    if (known) sendError(response, error.status, error.message);
    else sendError(response, 500, 'The service failed to answer this request.');
  }
}

/**
 * Whether somebody reads the body, so that its next bytes are what is waited for. While there are bytes that were not
 * taken yet, it is the handler that takes its time, not the client.
 */
function isWaiting(request: IncomingMessage): boolean {
  const read = request.readableFlowing === true || request.listenerCount('readable') > 0;
  return read && request.readableLength === 0;
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}
