import type { ExitCode } from '../../exit-code.ts';
import type { CutRequest, ShutdownReport } from '../../lifecycle/last-shutdown.ts';
import type { MetricsSnapshot } from '../../ops/metrics.ts';

/*
 * What a supervisor and its workers say to each other. The channel keeps the order, and that is what retiring rests
 * on: a worker that is told to retire has before that been handed every connection that was meant for it.
 */

/** Tells a process that it is a worker. */
export const WORKER_VARIABLE = 'MASTER_AGENT_WORKER';
/** The descriptor on which a worker's flight recorder writes. */
export const RECORDER_FD = 4;

export type ToWorker =
  /** Comes with a socket. They are numbered in the order in which they go out. */
  | { readonly type: 'connection'; readonly number: number }
  | { readonly type: 'stop'; readonly reason: string; readonly delayMs: number }
  /** Ends a lame duck; cuts what is in flight. */
  | { readonly type: 'lock' }
  | { readonly type: 'cut' }
  | { readonly type: 'retire'; readonly lingerMs: number }
  /** Keep answers back: the listening socket is about to be closed. */
  | { readonly type: 'hold' }
  /** It is closed, and what came on it was handed over. */
  | { readonly type: 'leave' }
  | { readonly type: 'reopen' }
  | { readonly type: 'ask' };

export type FromWorker =
  | { readonly type: 'ready' }
  | { readonly type: 'failed'; readonly message: string; readonly exitCode: ExitCode }
  /** Once a second, and when asked: a loop that turns, and what it is doing. */
  | { readonly type: 'beat'; readonly snapshot: MetricsSnapshot }
  /** Of a connection it was handed: it is the worker's now. */
  | { readonly type: 'taken'; readonly number: number }
  /** What it will end with tells why it has locked itself; with 0 it was told to. */
  | { readonly type: 'locked'; readonly inFlight: number; readonly exitCode: ExitCode }
  | ({ readonly type: 'drained' } & Drained)
  | { readonly type: 'emergency'; readonly reason: string; readonly by: string }
  | { readonly type: 'stopped'; readonly report: ShutdownReport; readonly snapshot: MetricsSnapshot };

/** How a worker's drain has ended. */
export interface Drained {
  readonly cut: readonly CutRequest[];
  /** Whether it was ended, by the deadline or by an order, with work still in flight. */
  readonly forced: boolean;
}

/** How often a worker shows that its loop turns. */
export const BEAT_MS = 1_000;
