import type { Router } from '../http/router.ts';
import { type Admin, EMERGENCY_PATH, emergencyShutdown } from './admin.ts';
import { type Health, health } from './health.ts';
import { type MetricsSnapshot, metrics } from './metrics.ts';
import { livez, readyz, type Status, sendStatus } from './status.ts';

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

/** All routes of the operator's door. */
export function addOperatorRoutes(router: Router, facts: Facts, admin: Admin): void {
  router.get('/livez', (_request, response) => livez(response));
  router.get('/readyz', (_request, response) => {
    const { ready, state } = facts.health();
    readyz(response, ready, state);
  });
  router.get('/status', async (_request, response) => sendStatus(response, await facts.status()));
  router.get('/metrics', async (_request, response) => metrics(response, await facts.metrics()));
  router.post(EMERGENCY_PATH, (request, response) => emergencyShutdown(request, response, admin));
}
