import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import { EMERGENCY_PATH } from '../server/request-audit.ts';
import type { Handler, Router } from '../server/router.ts';
import { type Admin, emergencyShutdown } from './admin.ts';
import { type Health, health } from './health.ts';
import type { HostCheck } from './host-check.ts';
import { type MetricsSnapshot, metrics } from './metrics.ts';
import { livez, readyz, type Status, sendStatus } from './status.ts';
import type { StatusStream } from './status-stream.ts';

/** The service's own routes on its own port, behind the gate, beside the application's. */
export function addServiceRoutes(router: Router, facts: () => Health, admin: Admin): void {
  router.get('/health', (_request, response) => health(response, facts()));
  router.post(EMERGENCY_PATH, (request, response) => emergencyShutdown(request, response, admin, 'service'));
}

/** What the routes of the ops server tell. */
export interface OpsFacts {
  readonly admin: Admin;
  readonly lifecycle: Lifecycle;
  /** Whether a load balancer should send requests. */
  readonly ready: () => boolean;
  readonly status: () => Promise<Status>;
  readonly metrics: () => Promise<MetricsSnapshot>;
}

/** What the ops server has for people. */
export interface OperatorPage {
  readonly page: Handler;
  readonly stream: StatusStream;
}

/** All routes of the ops server. */
export function addOperatorRoutes(
  router: Router,
  facts: OpsFacts,
  { page, stream }: OperatorPage,
  check: HostCheck,
): void {
  // Probes and scrapes come by whatever name the platform has for this machine, and tell nothing that is not known.
  router.get('/livez', (_request, response) => livez(response));
  router.get('/readyz', (_request, response) => {
    readyz(response, facts.ready(), facts.lifecycle.state);
  });
  router.get('/metrics', async (_request, response) => metrics(response, await facts.metrics()));
  // What a browser must not be tricked into reading, or into doing.
  router.get('/', check(page));
  router.get(
    '/events',
    check((request, response) => stream.open(request, response)),
  );
  router.get(
    '/status',
    check(async (_request, response) => sendStatus(response, await facts.status())),
  );
  router.post(
    EMERGENCY_PATH,
    check((request, response) => emergencyShutdown(request, response, facts.admin, 'ops')),
  );
}
