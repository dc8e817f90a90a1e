import { createServer, type Server } from 'node:http';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { dispatch } from '../http/dispatch.ts';
import { Exchange, type Surroundings } from '../http/exchange.ts';
import { InFlight } from '../http/in-flight.ts';
import { Router } from '../http/router.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import { listen, OPERATOR_DOOR, urlOf } from '../lifecycle/listen.ts';
import type { ShutdownReport } from '../lifecycle/shutdown-record.ts';
import type { Admin } from './admin.ts';
import { hostCheck } from './host-check.ts';
import { assemblePage } from './page.ts';
import { Pages } from './pages.ts';
import { addOperatorRoutes, type Facts } from './table.ts';

/** Whoever asks here sends a few lines; nobody needs longer. */
const REQUEST_TIMEOUT_MS = 10_000;

export interface OperatorDoor {
  readonly server: Server;
  /** What the door tells is not as it was: who watches is told at once. */
  readonly changed: () => void;
  /** Closes it, at once but for a last word to who watches: how the stop went, if there was one. */
  readonly close: (report: ShutdownReport | undefined) => Promise<void>;
}

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
): Promise<OperatorDoor | undefined> {
  const { opsHost, opsPort } = config;
  if (opsPort === 'off') return undefined;
  const router = new Router();
  const page = assemblePage();
  const around: Surroundings = { lifecycle, inFlight: new InFlight(), log };
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS });
  server.on('request', (request, response) => {
    const client = request.socket.remoteAddress ?? 'unknown';
    const exchange = new Exchange(request, response, client, () => undefined, around);
    response.on('close', () => exchange.end());
    dispatch(router, exchange, response);
  });
  await listen(server, opsHost, opsPort, OPERATOR_DOOR);
  const pages = new Pages(facts.status, log);
  addOperatorRoutes(router, facts, admin, { page, pages }, hostCheck(config));
  log.info(`Operator's door open on ${urlOf(server)}`);
  return { server, changed: () => pages.changed(), close };

  async function close(report: ShutdownReport | undefined): Promise<void> {
    server.close();
    await pages.close(report);
    server.closeAllConnections();
  }
}
