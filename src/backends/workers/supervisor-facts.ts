import { hostname } from 'node:os';
import type { AuditLog } from '../../audit/audit-log.ts';
import type { LastShutdown } from '../../lifecycle/last-shutdown.ts';
import type { Lifecycle } from '../../lifecycle/lifecycle.ts';
import type { MetricsSnapshot } from '../../ops/metrics.ts';
import type { Facts } from '../../ops/routes.ts';
import {
  answersOf,
  auditStatus,
  OLDEST,
  type Status,
  type StopFacts,
  shutdownStatus,
  uptime,
} from '../../ops/status.ts';
import { version } from '../../version.ts';
import type { Reloads } from './reloads.ts';
import { latestLoop, sumRejected, sumTallies } from './totals.ts';
import type { WorkerPool } from './worker-pool.ts';

/** What the supervisor itself knows; the rest its workers are asked for. */
export interface SupervisorSources {
  readonly lifecycle: Lifecycle;
  readonly pool: WorkerPool;
  readonly reloads: Reloads;
  readonly stop: () => StopFacts;
  readonly lastShutdown: () => LastShutdown | undefined;
  readonly audit: () => AuditLog | undefined;
}

/** All workers as one service. */
export function supervisorFacts(sources: SupervisorSources): Facts {
  const { lifecycle, pool, reloads } = sources;
  return {
    health: () => ({ ready: lifecycle.ready && pool.ready, state: lifecycle.state, inFlight: 0 }),
    status: async () => (await look()).status,
    metrics: async () => (await look()).metrics,
  };

  async function look(): Promise<{ status: Status; metrics: MetricsSnapshot }> {
    const { inFlight, oldest, snapshots, workers } = await pool.sum();
    const { departed, replaced } = pool;
    const add = (pick: (status: Status) => number): number =>
      snapshots.reduce((sum, { status }) => sum + pick(status), 0);
    const tallies = sumTallies([...departed.tallies, ...snapshots.flatMap(({ tallies }) => tallies)]);
    const status: Status = {
      service: 'master-agent',
      version,
      host: hostname(),
      pid: process.pid,
      state: lifecycle.state,
      since: lifecycle.since.toISOString(),
      uptime_seconds: uptime(),
      generation: pool.generation,
      in_flight: { count: inFlight, oldest: oldest.slice(0, OLDEST) },
      connections: {
        open: add(({ connections }) => connections.open),
        idle: add(({ connections }) => connections.idle),
      },
      answers: answersOf(tallies),
      rejected: sumRejected([departed.rejected, ...snapshots.map(({ status: { rejected } }) => rejected)]),
      shutdown: shutdownStatus(lifecycle, sources.stop()),
      last_shutdown: sources.lastShutdown() ?? null,
      last_reload: reloads.last ?? null,
      reload: reloads.startedAt === undefined ? null : { started: reloads.startedAt.toISOString() },
      workers,
      event_loop: latestLoop(snapshots),
      audit: auditStatus(sources.audit()),
    };
    const metrics: MetricsSnapshot = {
      status,
      tallies,
      cut: snapshots.reduce((sum, { cut }) => sum + cut, departed.cut),
      supervisor: { replaced, reloads: reloads.counts },
    };
    return { status, metrics };
  }
}
