import type { Logger } from 'pino';
import type { AuditLog } from '../audit/audit-log.ts';
import type { Config } from '../config/settings.ts';
import type { ExitCode } from '../exit-code.ts';
import type { CutHold, CutRequest } from '../lifecycle/last-shutdown.ts';
import type { Lifecycle, StopOrder } from '../lifecycle/lifecycle.ts';
import type { Admin } from '../ops/admin.ts';
import type { MetricsSnapshot } from '../ops/metrics.ts';
import type { OpenWork, Status } from '../ops/status.ts';
import type { TrustedProxies } from '../server/trusted-proxies.ts';

/** What serves: this process, worker processes, a program. The methods stand in the order in which a life calls them. */
export interface Backend {
  /** Where it accepts requests, for people. */
  readonly where: string;
  /** Whether a handler would answer a request that came now, as far as the backend can tell. */
  readonly ready: boolean;
  /** Whether all event loops that serve have turned lately. */
  readonly responsive: boolean;
  /** 1 for the first set of code and settings, one more after each reload. */
  readonly generation: number;

  /** Accepts nothing yet. @throws StartError or ConfigError; then `kill` cleans up */
  start(audit: AuditLog | undefined): Promise<void>;
  /** Accepts requests from now on. @throws ConfigError when the address cannot be had */
  open(): Promise<void>;
  status(): BackendStatus | Promise<BackendStatus>;
  /**
   * Puts new settings, and where it can new code, in place.
   * @returns what is new now
   * @throws Error that says why everything stays as it was
   */
  reload(settings: Settings): Promise<'settings' | 'code and settings'>;
  /** Continues in new files where the old ones were renamed. */
  reopen(): void;

  /** A stop was ordered and the lock follows: health checks fail, and nothing new is started. */
  stopOrdered(order: StopOrder): void;
  /** The state is stopping: new requests are refused, and the application is told. @returns what is in flight */
  lock(order: StopOrder): Promise<OpenWork>;
  /**
   * Resolves when nothing is in flight, and the application's locked() is done. Without fail-safe there may be something
   * again later.
   */
  drained(): Promise<void>;
  /** Ends what is in flight, by force. */
  cut(reason: string): Promise<Cut>;
  /** Answers what is still on its way and closes the listening socket. @returns how many are in flight after that */
  drainAcceptQueue(): Promise<number>;
  /** Stops the application and ends the connections that are left. */
  close(limits: CloseLimits): Promise<Closed>;
  /** Ends everything at once, after a failed start. */
  kill(): Promise<void>;
  /** The application ends the process in this turn of the loop: puts what is in flight on record. @returns it */
  lose(): readonly CutRequest[];
}

/** What a backend may ask of its controller. */
export interface Host {
  readonly log: Logger;
  readonly lifecycle: Lifecycle;
  /** Decides about requests to the administrator's routes. */
  readonly admin: Admin;
  /** Whose word about a client is taken. */
  readonly proxies: TrustedProxies;
  /** What was cut, other than by `Backend.cut`: names it in the log, and the requests in the report of a stop. */
  cut(requests: readonly CutRequest[], holds?: readonly CutHold[]): void;
  /** The audit log cannot be written: the service stops. */
  auditLost(error: Error): void;
  /** What serves cannot be had again: the service stops. */
  lost(error: Error): void;
  /** Something that `/status` shows has changed. */
  changed(): void;
}

/** Settings, and the variables they came from, which worker processes are given. */
export interface Settings {
  readonly config: Config;
  readonly variables: NodeJS.ProcessEnv;
}

/** What was ended by force. */
export interface Cut {
  readonly requests: readonly CutRequest[];
  readonly holds: readonly CutHold[];
  /** Work in flight that is no request, or whose name is lost. */
  readonly unnamed: number;
}

/** Durations in milliseconds. */
export interface CloseLimits {
  /** Whether nothing was cut: the application's drained() is called. */
  readonly drained: boolean;
  /** For the application's drained(), and its stop(). */
  readonly stopMs: number;
  /** For everything, including a worker's audit log. */
  readonly closeMs: number;
}

/** How a backend has ended. */
export interface Closed {
  /** Requests since the lock that were answered whole, left by their clients, closed as their routes say, and refused. */
  readonly completed: number;
  readonly aborted: number;
  readonly closed: number;
  readonly refused: number;
  /** Admitted after the drain, and cut. */
  readonly cut: readonly CutRequest[];
  /** `Ok`; `Internal` when a hook of the stop failed, `Forced` when one was late, `AuditLost` when records are lost. */
  readonly exitCode: ExitCode;
}

/** What only a backend knows: plain data, which can cross to another process. */
export type BackendStatus = Pick<
  Status,
  'generation' | 'in_flight' | 'connections' | 'rejected' | 'event_loop' | 'workers' | 'program'
> &
  Pick<MetricsSnapshot, 'tallies' | 'cut' | 'replaced'>;
