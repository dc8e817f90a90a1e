import type { ServerResponse } from 'node:http';
import type { State } from '../lifecycle/lifecycle.ts';
import { EMERGENCY_PATH } from '../server/request-audit.ts';
import { sendJson } from '../server/response.ts';
import type { Router } from '../server/router.ts';
import { version } from '../version.ts';
import { type Admin, emergencyShutdown } from './admin.ts';
import { uptime } from './status.ts';

export interface Health {
  /** False from the moment a stop is ordered, also while requests are still served. */
  readonly ready: boolean;
  readonly state: State;
  readonly inFlight: number;
}

/** The service's own routes on its own port, behind the gate, beside the application's. */
export function addServiceRoutes(router: Router, facts: () => Health, admin: Admin): void {
  router.get('/health', (_request, response) => health(response, facts()));
  router.post(EMERGENCY_PATH, (request, response, context) =>
    emergencyShutdown(request, response, context, admin, 'service'),
  );
}

/** For load balancers. A request while stopping never gets here: the gate answers it. */
function health(response: ServerResponse, { ready, state, inFlight }: Health): void {
  sendJson(response, ready ? 200 : 503, {
    status: ready ? 'healthy' : 'shutting down',
    service_state: state,
    accepting_requests: state === 'running',
    in_flight: inFlight,
    uptime_seconds: uptime(),
    version,
  });
}
