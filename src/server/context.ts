import type { Logger } from 'pino';
import type { InFlight } from './in-flight.ts';

/** What a handler is given beside the request and the response. Everything is made when it is first asked for. */
export interface Context {
  /** Path parameters by name, decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** In the answer as `X-Request-Id`, on every line of `log` and in the audit log; from a trusted proxy, or our own. */
  readonly id: string;
  /** The trace id of a valid `traceparent` header (W3C Trace Context). */
  readonly trace: string | undefined;
  /** The client's address; behind TRUSTED_PROXIES, the one that they have seen. */
  readonly client: string;
  readonly log: Logger;
  /** Aborted when the client is gone, or when the deadline has cut the request. */
  readonly signal: AbortSignal;
  /** Aborted when the service begins to stop: end a stream, answer a long poll. */
  readonly stopping: AbortSignal;
  /** Milliseconds until the request will be cut, or undefined while no stop is ordered. */
  readonly deadline: number | undefined;
  /** The counter that holds the drain: `enter('job 17')` for work that outlives the answer, `buffer` for worker threads. */
  readonly inFlight: InFlight;
  /**
   * Adds fields of the handler's own to this request's record in the audit log. Later values replace earlier ones.
   * @throws TypeError when a value cannot be written as JSON, RangeError when all of it is larger than 8 KiB
   */
  audit(fields: Readonly<Record<string, unknown>>): void;
}
