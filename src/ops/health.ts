import type { ServerResponse } from 'node:http';
import type { State } from '../lifecycle/lifecycle.ts';
import { sendJson } from '../server/response.ts';
import { version } from '../version.ts';
import { uptime } from './status.ts';

export interface Health {
  /** False from the moment a stop is ordered, also while requests are still served. */
  readonly ready: boolean;
  readonly state: State;
  readonly inFlight: number;
}

/** `GET /health`, for load balancers. While stopping it never gets here: the gate answers. */
export function health(response: ServerResponse, { ready, state, inFlight }: Health): void {
  sendJson(response, ready ? 200 : 503, {
    status: ready ? 'healthy' : 'shutting down',
    service_state: state,
    accepting_requests: state === 'running',
    in_flight: inFlight,
    uptime_seconds: uptime(),
    version,
  });
}
