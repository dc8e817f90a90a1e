import type { BackendStatus, Closed, CloseLimits, Cut } from '../../control/backend.ts';
import type { ExitCode } from '../../exit-code.ts';
import type { CutRequest } from '../../lifecycle/last-shutdown.ts';
import type { AdminAnswer, AdminRequest } from '../../ops/admin.ts';
import type { OpenWork } from '../../ops/status.ts';

/*
 * What a controller and its workers say to each other. The channel keeps the order, and that is what retiring rests
 * on: a worker that is told to retire has before that been handed every connection that was meant for it.
 */

/** Tells a process that it is a worker, and which of them: from 0 on. */
export const WORKER_VARIABLE = 'MASTER_AGENT_WORKER';
/** A worker's descriptor of the file that says what it has in flight. */
export const FLIGHT_FD = 4;
/** A worker's descriptor of the file that says how many connections each of several has. */
export const SHARES_FD = 5;
/** How often a worker shows that its loop turns. */
export const BEAT_MS = 1_000;

/** A stop order as it crosses to another process, whose monotonic clock begins elsewhere. */
export interface OrderMessage {
  readonly reason: string;
  /** Wall-clock milliseconds. */
  readonly orderedAtMs: number;
  readonly lockInMs: number;
  readonly deadlineInMs: number;
}

/** What a worker's backend is called for, by name: the argument, and what comes back. */
export interface Calls {
  status: { readonly argument: undefined; readonly result: BackendStatus };
  /** Comes with a socket: listen on it. Comes back with where that is, or with the code of the system's error. */
  listen: {
    readonly argument: undefined;
    readonly result: { readonly where: string } | { readonly code: string };
  };
  /** Take no more connections. Comes back when none comes any more. */
  stopAccepting: { readonly argument: undefined; readonly result: undefined };
  /** Take no more connections and serve those that are open. Comes back when none is left. */
  retire: { readonly argument: undefined; readonly result: undefined };
  lock: { readonly argument: OrderMessage; readonly result: OpenWork };
  drained: { readonly argument: undefined; readonly result: undefined };
  /** The argument says why, for people. */
  cut: { readonly argument: string; readonly result: Cut };
  /** Keep answers back, and empty the queue of the socket that it listens on. Comes back when no more is accepted. */
  closeQueue: { readonly argument: undefined; readonly result: undefined };
  /** Answer what was held, and what still comes. Comes back with how many requests are in flight after that. */
  release: { readonly argument: undefined; readonly result: number };
  /** The last one: the worker ends when it has answered. */
  close: { readonly argument: CloseLimits; readonly result: Closed };
}

export type CallName = keyof Calls;

export type ToWorker =
  /** Comes with a connection. They are numbered in the order in which they go out. */
  | { readonly type: 'connection'; readonly number: number }
  | { readonly type: 'call'; readonly id: number; readonly name: CallName; readonly argument: unknown }
  | { readonly type: 'stop ordered'; readonly order: OrderMessage }
  | { readonly type: 'reopen' }
  | { readonly type: 'admin answer'; readonly id: number; readonly answer: AdminAnswer };

export type FromWorker =
  | { readonly type: 'ready' }
  | { readonly type: 'failed'; readonly message: string; readonly exitCode: ExitCode }
  /** Once a second: a loop that turns, and what it is doing. */
  | { readonly type: 'beat'; readonly status: BackendStatus }
  /** Comes with a connection that another worker has more room for. */
  | { readonly type: 'passed on' }
  /** Of a connection it was handed: it is the worker's now. */
  | { readonly type: 'taken'; readonly number: number }
  /** Comes back for a call; `status` is fresh. */
  | { readonly type: 'result'; readonly id: number; readonly result: unknown; readonly status: BackendStatus }
  | { readonly type: 'admin'; readonly id: number; readonly request: AdminRequest }
  | { readonly type: 'cut'; readonly requests: readonly CutRequest[] }
  /** Its application has broken. It has locked itself, and completes what it has. */
  | { readonly type: 'crashed' }
  | { readonly type: 'audit lost'; readonly message: string };
