import type { Head } from '../audit/head.ts';
import type { UncleanAudit } from '../audit/recover.ts';
import type { AuditMode } from '../config/settings.ts';
import type { ReloadOutcome } from '../lifecycle/last-reload.ts';
import type { LastShutdown } from '../lifecycle/last-shutdown.ts';
import type { State } from '../lifecycle/lifecycle.ts';
import type { Phase } from '../server/exchange.ts';
import type { RefusalReason } from '../server/gate.ts';

/** A request in flight. */
export interface OpenRequest {
  readonly id: string;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly age_ms: number;
  readonly phase: Phase;
}

/** Work in flight that is no request, by the name that the application gave it. */
export interface OpenHold {
  readonly name: string;
  readonly age_ms: number;
  /** The id of the request whose handler has entered it; null for one outside of a request. */
  readonly request: string | null;
}

/** What a drain waits for. */
export interface OpenWork {
  /** Requests, holds and what is held without a name. */
  readonly count: number;
  /** The oldest requests, and the oldest holds. */
  readonly oldest: readonly OpenRequest[];
  readonly holds: readonly OpenHold[];
}

/** Answers by the class of their status; `none`: the request ended without one. */
export type Answers = Readonly<Record<'1xx' | '2xx' | '3xx' | '4xx' | '5xx' | 'none', number>>;

/** How late the event loop was in the last minute, or in less of it. */
export interface LoopDelayFigures {
  readonly delay_p99_ms: number;
  readonly delay_max_ms: number;
}

/** The origin of an emergency shutdown, and its reason. */
export interface Emergency {
  readonly by: string;
  readonly reason: string;
  /** Whether the latch is on disk; null before that is known. */
  readonly latched: boolean | null;
}

/** The body of `GET /status`. */
export interface Status {
  readonly service: 'master-agent';
  readonly version: string;
  /** The machine's name. */
  readonly host: string;
  readonly pid: number;
  /** Where the service accepts requests; null while it does not. */
  readonly address: string | null;
  /** The module; null when it has none, or was given an object. */
  readonly application: string | null;
  /** Whether `POST /admin/emergency-shutdown` is open: a token is set. */
  readonly administration: 'open' | 'closed';
  readonly state: State;
  /** ISO 8601: when the state was entered. */
  readonly since: string;
  readonly uptime_seconds: number;
  /** 1 for the first set of code and settings, one more after each reload. */
  readonly generation: number;
  readonly in_flight: OpenWork;
  readonly connections: { readonly open: number; readonly idle: number };
  /** Admitted requests that have ended since the start. */
  readonly answers: Answers;
  /** Requests answered with 503 since the start. */
  readonly rejected: Readonly<Record<RefusalReason, number>> & { readonly total: number };
  readonly shutdown: {
    readonly reason: string;
    /** ISO 8601: when the stop was ordered. */
    readonly started: string;
    /** ISO 8601: when what is in flight will be cut. */
    readonly deadline: string;
    readonly remaining_seconds: number;
    /** Until new requests are refused: above 0 only in a lame duck. */
    readonly lock_in_seconds: number;
    /** Null before the lock. */
    readonly in_flight_at_lock: number | null;
    /** Set when it is an emergency shutdown. */
    readonly emergency: Emergency | null;
  } | null;
  readonly last_shutdown: LastShutdown | null;
  readonly last_reload: ReloadOutcome | null;
  /** Set while a reload is under way. */
  readonly reload: { readonly started: string } | null;
  /** Null without workers. */
  readonly workers: readonly WorkerStatus[] | null;
  /** Null without one. */
  readonly program: ProgramStatus | null;
  /** With workers, that of the latest. Null before it is known. */
  readonly event_loop: LoopDelayFigures | null;
  /** Null when there is none. */
  readonly audit: {
    readonly mode: AuditMode;
    readonly head: Head;
    readonly last_sync_age_ms: number | null;
    /** Size of the file being written. */
    readonly bytes: number;
    /** Null when the disk does not tell. */
    readonly disk_free_bytes: number | null;
    /** What the run before left behind when it did not close the log; null when it did. */
    readonly unclean_end: UncleanAudit | null;
    /** Why nothing is written any more. */
    readonly failure: string | null;
  } | null;
}

/** What a service has told of itself. One of an older version, which may still run, does not tell of holds. */
export function statusFrom(told: Status): Status {
  const { in_flight, last_shutdown: last } = told;
  return {
    ...told,
    in_flight: { ...in_flight, holds: in_flight.holds ?? [] },
    last_shutdown: last?.unclean === false ? { ...last, cut_holds: last.cut_holds ?? [] } : last,
  };
}

/** A worker, as the controller sees it. */
export interface WorkerStatus {
  readonly pid: number;
  readonly generation: number;
  readonly state: 'starting' | 'serving' | 'retiring';
  readonly in_flight: number;
  readonly connections: number;
  /** Since its last sign of life. */
  readonly heard_ms_ago: number;
}

/** A guarded program. */
export interface ProgramStatus {
  readonly command: string;
  /** Whether requests wait until it is there again. */
  readonly holding: boolean;
  /**
   * Instances that were replaced: they ended by themselves, were killed because they failed health checks, or accepted
   * no more connections.
   */
  readonly restarts: { readonly ended: number; readonly unhealthy: number; readonly deaf: number };
  readonly instances: readonly {
    readonly pid: number;
    readonly generation: number;
    readonly state: 'starting' | 'serving' | 'leaving';
    readonly in_flight: number;
    readonly serving_seconds: number;
    /** Health checks failed in a row. */
    readonly failed_checks: number;
  }[];
}

/** How many of the oldest requests, and of the oldest holds, are named. */
export const OLDEST = 20;

/** Seconds since this process began. */
export function uptime(): number {
  return tenths(process.uptime());
}

export function tenths(value: number): number {
  return Math.round(value * 10) / 10;
}
