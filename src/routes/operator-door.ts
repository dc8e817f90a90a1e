import { createServer, type Server } from 'node:http';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { dispatch } from '../http/dispatch.ts';
import { Exchange, type Surroundings } from '../http/exchange.ts';
import { InFlight } from '../http/in-flight.ts';
import { Router } from '../http/router.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import { listen, OPERATOR_DOOR, urlOf } from '../lifecycle/listen.ts';
import type { Admin } from './admin.ts';
import { addOperatorRoutes, type Facts } from './table.ts';

/** Whoever asks here sends a few lines; nobody needs longer. */
const REQUEST_TIMEOUT_MS = 10_000;

/**
 * Opens the operator's door: the same router and the same exchanges as the service's, without a gate. It answers in
 * every state, and nothing on it counts as in flight: an operator who watches the drain does not hold it up.
 * Undefined when it is off.
 * @throws StartError 78 when its address cannot be had
 */
export async function openOperatorDoor(
  config: Config,
  facts: Facts,
  admin: Admin,
  { lifecycle, log }: { lifecycle: Lifecycle; log: Logger },
): Promise<Server | undefined> {
  const { opsHost, opsPort } = config;
  if (opsPort === 'off') return undefined;
  const router = new Router();
  addOperatorRoutes(router, facts, admin);
  const around: Surroundings = { lifecycle, inFlight: new InFlight(), log };
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS });
  server.on('request', (request, response) => {
    const client = request.socket.remoteAddress ?? 'unknown';
    const exchange = new Exchange(request, response, client, () => undefined, around);
    response.on('close', () => exchange.end());
    dispatch(router, exchange, response);
  });
  await listen(server, opsHost, opsPort, OPERATOR_DOOR);
  log.info(`Operator's door open on ${urlOf(server)}`);
  return server;
}
