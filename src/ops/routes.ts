import { EMERGENCY_PATH } from '../server/request-audit.ts';
import type { Handler, Router } from '../server/router.ts';
import { type Admin, emergencyShutdown } from './admin.ts';
import { type Health, health } from './health.ts';
import type { HostCheck } from './host-check.ts';
import { type MetricsSnapshot, metrics } from './metrics.ts';
import { livez, readyz, type Status, sendStatus } from './status.ts';
import type { StatusStream } from './status-stream.ts';

/** Where the routes get what they tell. One process has it at hand; a supervisor asks its workers. */
export interface Facts {
  health(): Health;
  status(): Status | Promise<Status>;
  metrics(): MetricsSnapshot | Promise<MetricsSnapshot>;
}

/** The service's own routes on the service's door, behind the gate, beside the application's. */
export function addServiceRoutes(router: Router, facts: Facts, admin: Admin): void {
  router.get('/health', (_request, response) => health(response, facts.health()));
  router.post(EMERGENCY_PATH, (request, response) => emergencyShutdown(request, response, admin));
}

/** What the ops server has for people. */
export interface OperatorPage {
  readonly page: Handler;
  readonly pages: StatusStream;
}

/** All routes of the ops server. */
export function addOperatorRoutes(
  router: Router,
  facts: Facts,
  admin: Admin,
  { page, pages }: OperatorPage,
  check: HostCheck,
): void {
  // Probes and scrapes come by whatever name the platform has for this machine, and tell nothing that is not known.
  router.get('/livez', (_request, response) => livez(response));
  router.get('/readyz', (_request, response) => {
    const { ready, state } = facts.health();
    readyz(response, ready, state);
  });
  router.get('/metrics', async (_request, response) => metrics(response, await facts.metrics()));
  // What a browser must not be tricked into reading, or into doing.
  router.get('/', check(page));
  router.get(
    '/events',
    check((request, response) => pages.open(request, response)),
  );
  router.get(
    '/status',
    check(async (_request, response) => sendStatus(response, await facts.status())),
  );
  router.post(
    EMERGENCY_PATH,
    check((request, response) => emergencyShutdown(request, response, admin)),
  );
}
