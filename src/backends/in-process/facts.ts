import { hostname } from 'node:os';
import type { AuditLog } from '../../audit/audit-log.ts';
import type { ReloadOutcome } from '../../lifecycle/last-reload.ts';
import type { LastShutdown } from '../../lifecycle/last-shutdown.ts';
import type { Lifecycle } from '../../lifecycle/lifecycle.ts';
import type { Health } from '../../ops/health.ts';
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
import type { Connections } from '../../server/connections.ts';
import type { Outcome } from '../../server/exchange.ts';
import type { Gate } from '../../server/gate.ts';
import type { InFlight } from '../../server/in-flight.ts';
import type { Router } from '../../server/router.ts';
import { version } from '../../version.ts';
import type { LoopDelay } from './loop-delay.ts';

/** What the routes tell about one service: read from its parts at the moment somebody asks. */
export interface FactSources {
  readonly lifecycle: Lifecycle;
  readonly inFlight: InFlight;
  readonly connections: Connections;
  readonly gate: Gate;
  readonly router: Router;
  readonly outcomes: Readonly<Record<Outcome, number>>;
  readonly loopDelay: LoopDelay;
  readonly stop: () => StopFacts;
  readonly lastShutdown: () => LastShutdown | undefined;
  readonly lastReload: () => ReloadOutcome | undefined;
  readonly audit: () => AuditLog | undefined;
}

/** The routes' facts, all at hand in this process. */
export interface ServiceFacts extends Facts {
  status(): Status;
  metrics(): MetricsSnapshot;
}

export function factsOf(parts: FactSources): ServiceFacts {
  const { lifecycle, inFlight, connections, gate, router, outcomes } = parts;
  return { health, status, metrics };

  function health(): Health {
    return { ready: lifecycle.ready, state: lifecycle.state, inFlight: inFlight.count };
  }

  function status(): Status {
    const { starting, stopping, overloaded } = gate.refused;
    return {
      service: 'master-agent',
      version,
      host: hostname(),
      pid: process.pid,
      state: lifecycle.state,
      since: lifecycle.since.toISOString(),
      uptime_seconds: uptime(),
      generation: 1,
      in_flight: { count: inFlight.count, oldest: oldest() },
      connections: { open: connections.size, idle: connections.idle },
      answers: answersOf(router.tallies()),
      rejected: { total: starting + stopping + overloaded, starting, stopping, overloaded },
      shutdown: shutdownStatus(lifecycle, parts.stop()),
      last_shutdown: parts.lastShutdown() ?? null,
      last_reload: parts.lastReload() ?? null,
      reload: null,
      workers: null,
      event_loop: parts.loopDelay.read(),
      audit: auditStatus(parts.audit()),
    };
  }

  function metrics(): MetricsSnapshot {
    return { status: status(), tallies: router.tallies(), cut: outcomes.cut };
  }

  function oldest(): Status['in_flight']['oldest'] {
    return [...connections.exchanges()]
      .sort((a, b) => a.startedMs - b.startedMs)
      .slice(0, OLDEST)
      .map(({ id, method, path, ageMs, phase }) => ({ id, method, path, age_ms: Math.round(ageMs), phase }));
  }
}
