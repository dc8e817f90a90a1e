import type { ServerResponse } from 'node:http';
import type { AuditMode } from '../audit/audit-log.ts';
import type { Head } from '../audit/head.ts';
import type { UncleanAudit } from '../audit/recover.ts';
import type { Phase } from '../http/exchange.ts';
import type { RefusalReason } from '../http/gate.ts';
import { sendJson } from '../http/response.ts';
import type { State } from '../lifecycle/lifecycle.ts';
import type { LastShutdown } from '../lifecycle/shutdown-record.ts';

/** A request in flight, as an operator sees it: what blocks the drain. */
export interface OpenRequest {
  readonly id: string;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly age_ms: number;
  readonly phase: Phase;
}

/** The body of `GET /status`. */
export interface Status {
  readonly service: 'master-agent';
  readonly version: string;
  readonly pid: number;
  readonly state: State;
  /** ISO 8601: when the state was entered. */
  readonly since: string;
  readonly uptime_seconds: number;
  /** 1 for the first set of code and settings, one more after each reload. */
  readonly generation: number;
  readonly in_flight: { readonly count: number; readonly oldest: readonly OpenRequest[] };
  readonly connections: { readonly open: number; readonly idle: number };
  /** Requests answered with 503 since the start. */
  readonly rejected: Readonly<Record<RefusalReason, number>> & { readonly total: number };
  readonly shutdown: {
    readonly reason: string;
    /** ISO 8601: when the stop was ordered. */
    readonly started: string;
    /** ISO 8601: when what is in flight will be cut. */
    readonly deadline: string;
    readonly remaining_seconds: number;
  } | null;
  readonly last_shutdown: LastShutdown | null;
  /** Null when there is none. */
  readonly audit: {
    readonly mode: AuditMode;
    readonly head: Head;
    readonly last_sync_age_ms: number | null;
    /** What the run before had left behind when it did not close the log; null when it did. */
    readonly unclean_end: UncleanAudit | null;
    /** Why nothing is written any more. */
    readonly failure: string | null;
  } | null;
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
