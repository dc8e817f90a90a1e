import { hostname } from 'node:os';
import type { AuditLog } from '../audit/audit-log.ts';
import type { LastShutdown } from '../lifecycle/last-shutdown.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import type { MetricsSnapshot } from '../ops/metrics.ts';
import {
  answersOf,
  auditStatus,
  type Emergency,
  type Status,
  shutdownStatus,
  uptime,
} from '../ops/status.ts';
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
}

/** What `GET /status` tells: what the controller knows, and what the backend does. */
export function statusOf(facts: ControlFacts, backend: BackendStatus): Status {
  const { lifecycle, reloads, audit, lastShutdown, inFlightAtLock, emergency } = facts;
  const { generation, in_flight, connections, tallies, rejected, workers, event_loop } = backend;
  return {
    service: 'master-agent',
    version,
    host: hostname(),
    pid: process.pid,
    state: lifecycle.state,
    since: lifecycle.since.toISOString(),
    uptime_seconds: uptime(),
    generation,
    in_flight,
    connections,
    answers: answersOf(tallies),
    rejected,
    shutdown: shutdownStatus(lifecycle, { inFlightAtLock, emergency }),
    last_shutdown: lastShutdown ?? null,
    last_reload: reloads.last ?? null,
    reload: reloads.startedAt === undefined ? null : { started: reloads.startedAt.toISOString() },
    workers,
    event_loop,
    audit: auditStatus(audit),
  };
}

/** What `GET /metrics` is made from. */
export function metricsOf(facts: ControlFacts, backend: BackendStatus): MetricsSnapshot {
  const { tallies, cut, replaced } = backend;
  return { status: statusOf(facts, backend), tallies, cut, replaced, reloads: facts.reloads.counts };
}
