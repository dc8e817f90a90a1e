import type { ServerResponse } from 'node:http';
import type { AuditLog } from '../audit/audit-log.ts';
import type { Head } from '../audit/head.ts';
import { type UncleanAudit, uncleanEnd } from '../audit/recover.ts';
import type { AuditMode } from '../config/settings.ts';
import type { ReloadOutcome } from '../lifecycle/last-reload.ts';
import type { LastShutdown } from '../lifecycle/last-shutdown.ts';
import type { Lifecycle, State } from '../lifecycle/lifecycle.ts';
import type { Phase } from '../server/exchange.ts';
import type { RefusalReason } from '../server/gate.ts';
import { sendJson } from '../server/response.ts';
import type { TallySnapshot } from '../server/tally.ts';
import { escapeControl } from './escape-control.ts';

/** A request in flight, as an operator sees it: what blocks the drain. */
export interface OpenRequest {
  readonly id: string;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly age_ms: number;
  readonly phase: Phase;
}

/** Answers by the class of their status; `none`: the request ended without one. */
export type Answers = Readonly<Record<'1xx' | '2xx' | '3xx' | '4xx' | '5xx' | 'none', number>>;

/** How late the event loop was, lately. */
export interface LoopDelayFigures {
  readonly delay_p99_ms: number;
  readonly delay_max_ms: number;
}

/** The origin of an emergency shutdown, and its reason. */
export interface Emergency {
  readonly by: string;
  readonly reason: string;
}

/** The body of `GET /status`. */
export interface Status {
  readonly service: 'master-agent';
  readonly version: string;
  /** The machine's name. */
  readonly host: string;
  readonly pid: number;
  readonly state: State;
  /** ISO 8601: when the state was entered. */
  readonly since: string;
  readonly uptime_seconds: number;
  /** 1 for the first set of code and settings, one more after each reload. */
  readonly generation: number;
  readonly in_flight: { readonly count: number; readonly oldest: readonly OpenRequest[] };
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
    /** Until new requests are refused: above 0 in a lame duck alone. */
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
  /** How late the event loop was in the last second or so; of several workers the latest. Null before it is known. */
  readonly event_loop: LoopDelayFigures | null;
  /** Null when there is none. */
  readonly audit: {
    readonly mode: AuditMode;
    readonly head: Head;
    readonly last_sync_age_ms: number | null;
    /** Size of the file that is written. */
    readonly bytes: number;
    /** What is left of its disk; null when the disk does not tell. */
    readonly disk_free_bytes: number | null;
    /** What the run before had left behind when it did not close the log; null when it did. */
    readonly unclean_end: UncleanAudit | null;
    /** Why nothing is written any more. */
    readonly failure: string | null;
  } | null;
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

/** What a drain is waiting for. */
export interface Drain {
  readonly state: State;
  readonly inFlight: number;
  readonly oldest: readonly OpenRequest[];
  /** Seconds until what is in flight is cut; undefined while no stop is ordered. */
  readonly left: number | undefined;
}

/** One line for people: `Draining: 3 in flight, 12 s left; oldest GET /report, 4.2 s`. */
export function drainLine({ state, inFlight, oldest: [first], left }: Drain): string {
  const what = state === 'stopping' ? 'Draining' : left === undefined ? `Service ${state}` : 'Lame duck';
  const time = left === undefined ? '' : `, ${left} s left`;
  const blocks =
    first === undefined
      ? ''
      : `; oldest ${first.method} ${escapeControl(first.path)}, ${(first.age_ms / 1000).toFixed(1)} s`;
  return `${what}: ${inFlight} in flight${time}${blocks}`;
}

export function drainOf({ state, in_flight, shutdown }: Status): Drain {
  const left = shutdown === null ? undefined : Math.ceil(shutdown.remaining_seconds);
  return { state, inFlight: in_flight.count, oldest: in_flight.oldest, left };
}

/** How many of the oldest requests are named. */
export const OLDEST = 20;

/** 200 as long as the process turns, in every state: a drain must not look like a death. */
export function livez(response: ServerResponse): void {
  sendJson(response, 200, { status: 'alive' });
}

/** 200 when a load balancer should send requests. */
export function readyz(response: ServerResponse, ready: boolean, state: State): void {
  sendJson(response, ready ? 200 : 503, { status: ready ? 'ready' : 'not ready', service_state: state });
}

export function sendStatus(response: ServerResponse, status: Status): void {
  response.setHeader('Cache-Control', 'no-store');
  sendJson(response, 200, status);
}

/** What a stop is known by beside its order. */
export interface StopFacts {
  readonly inFlightAtLock: number | undefined;
  readonly emergency: Emergency | undefined;
}

/** What `GET /status` tells of a stop. */
export function shutdownStatus({ order, state }: Lifecycle, stop: StopFacts): Status['shutdown'] {
  if (order === undefined) return null;
  const now = performance.now();
  const remainingMs = Math.max(0, order.deadlineMs - now);
  return {
    reason: order.reason,
    started: order.orderedAt.toISOString(),
    deadline: new Date(Date.now() + remainingMs).toISOString(),
    remaining_seconds: tenths(remainingMs / 1000),
    lock_in_seconds: state === 'running' ? tenths(Math.max(0, order.lockAtMs - now) / 1000) : 0,
    in_flight_at_lock: stop.inFlightAtLock ?? null,
    emergency: stop.emergency ?? null,
  };
}

/** What it tells of the audit log. */
export function auditStatus(log: AuditLog | undefined): Status['audit'] {
  if (log === undefined) return null;
  const { mode, head, lastSyncMs, failure, recovery, bytes, disk } = log;
  const age = lastSyncMs === undefined ? null : Math.round(performance.now() - lastSyncMs);
  return {
    mode,
    head,
    last_sync_age_ms: age,
    bytes,
    disk_free_bytes: disk?.freeBytes ?? null,
    unclean_end: uncleanEnd(recovery) ?? null,
    failure: failure?.message ?? null,
  };
}

/** The answers of all routes. */
export function answersOf(tallies: readonly TallySnapshot[]): Answers {
  const [none, one, two, three, four, five] = [0, 1, 2, 3, 4, 5].map((digit) =>
    tallies.reduce((sum, { classes }) => sum + (classes[digit] ?? 0), 0),
  ) as [number, number, number, number, number, number];
  return { '1xx': one, '2xx': two, '3xx': three, '4xx': four, '5xx': five, none };
}

/** Seconds since this process began. */
export function uptime(): number {
  return tenths(process.uptime());
}

function tenths(value: number): number {
  return Math.round(value * 10) / 10;
}
