import type { Logger } from 'pino';
import type { InFlight } from './in-flight.ts';

/** What a handler is given beside the request and the response. Everything is made when it is first asked for. */
export interface Context {
  /** Path parameters by name, decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** Unique to this request; on every line of `log`. */
  readonly id: string;
  readonly log: Logger;
  /** Aborted when the client is gone, or when the deadline has cut the request. */
  readonly signal: AbortSignal;
  /** Aborted when the service begins to stop: end a stream, answer a long poll. */
  readonly stopping: AbortSignal;
  /** Milliseconds until the request will be cut, or undefined while no stop is ordered. */
  readonly deadline: number | undefined;
  /** The counter that holds the drain: `enter()` for work that outlives the answer, `buffer` for worker threads. */
  readonly inFlight: InFlight;
  /**
   * Adds fields of the handler's own to this request's record in the audit log. Later values replace earlier ones.
   * @throws TypeError when a value cannot be written as JSON, RangeError when all of it is larger than 8 KiB
   */
  audit(fields: Readonly<Record<string, unknown>>): void;
}
