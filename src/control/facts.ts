import { hostname } from 'node:os';
import type { AuditLog } from '../audit/audit-log.ts';
import { uncleanEnd } from '../audit/recover.ts';
import type { LastShutdown } from '../lifecycle/last-shutdown.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import { type Answers, type Emergency, type Status, tenths, uptime } from '../ops/status.ts';
import type { TallySnapshot } from '../server/tally.ts';
import { version } from '../version.ts';
import type { BackendStatus } from './backend.ts';
import type { Reloads } from './reloads.ts';

/** What only the controller knows. */
export interface ControlFacts {
  readonly lifecycle: Lifecycle;
  readonly reloads: Reloads;
  readonly audit: AuditLog | undefined;
  readonly lastShutdown: LastShutdown | undefined;
  readonly inFlightAtLock: number | undefined;
  readonly emergency: Emergency | undefined;
  readonly application: string | undefined;
  readonly where: string;
  readonly administration: Status['administration'];
}

/** `GET /status`: what the controller knows, and what the backend does. */
export function statusOf(facts: ControlFacts, backend: BackendStatus): Status {
  const { lifecycle, reloads, audit, lastShutdown } = facts;
  const { generation, in_flight, connections, tallies, rejected, workers, program, event_loop } = backend;
  return {
    service: 'master-agent',
    version,
    host: hostname(),
    pid: process.pid,
    address: facts.where.startsWith('http') ? facts.where : null,
    application: facts.application ?? null,
    administration: facts.administration,
    state: lifecycle.state,
    since: lifecycle.since.toISOString(),
    uptime_seconds: uptime(),
    generation,
    in_flight,
    connections,
    answers: answersOf(tallies),
    rejected,
    shutdown: shutdownOf(facts),
    last_shutdown: lastShutdown ?? null,
    last_reload: reloads.last ?? null,
    reload: reloads.startedAt === undefined ? null : { started: reloads.startedAt.toISOString() },
    workers,
    program,
    event_loop,
    audit: audit === undefined ? null : auditOf(audit),
  };
}

/** The sum over all routes. */
function answersOf(tallies: readonly TallySnapshot[]): Answers {
  const count = (digit: number): number =>
    tallies.reduce((sum, tally) => sum + (tally.classes[digit] ?? 0), 0);
  return {
    '1xx': count(1),
    '2xx': count(2),
    '3xx': count(3),
    '4xx': count(4),
    '5xx': count(5),
    none: count(0),
  };
}

function shutdownOf({ lifecycle, inFlightAtLock, emergency }: ControlFacts): Status['shutdown'] {
  const { order, state } = lifecycle;
  if (order === undefined) return null;
  const now = performance.now();
  const remainingMs = Math.max(0, order.deadlineMs - now);
  return {
    reason: order.reason,
    started: order.orderedAt.toISOString(),
    deadline: new Date(Date.now() + remainingMs).toISOString(),
    remaining_seconds: tenths(remainingMs / 1000),
    lock_in_seconds: state === 'running' ? tenths(Math.max(0, order.lockAtMs - now) / 1000) : 0,
    in_flight_at_lock: inFlightAtLock ?? null,
    emergency: emergency ?? null,
  };
}

function auditOf({ mode, head, lastSyncMs, failure, recovery, bytes, disk }: AuditLog): Status['audit'] {
  return {
    mode,
    head,
    last_sync_age_ms: lastSyncMs === undefined ? null : Math.round(performance.now() - lastSyncMs),
    bytes,
    disk_free_bytes: disk?.freeBytes ?? null,
    unclean_end: uncleanEnd(recovery) ?? null,
    failure: failure?.message ?? null,
  };
}
