import { createServer, type Server } from 'node:http';
import type { Logger } from 'pino';
import type { Config } from '../config/settings.ts';
import type { ShutdownReport } from '../lifecycle/last-shutdown.ts';
import { listen, OPS_ADDRESS, urlOf } from '../platform/listen.ts';
import { dispatch } from '../server/dispatch.ts';
import { Exchange, type ServerContext } from '../server/exchange.ts';
import { InFlight } from '../server/in-flight.ts';
import { Router } from '../server/router.ts';
import { hostCheck } from './host-check.ts';
import { assemblePage } from './page.ts';
import { addOperatorRoutes, type OpsFacts } from './routes.ts';
import { StatusStream } from './status-stream.ts';

/** A request to the ops server is a few lines; none needs longer. */
const REQUEST_TIMEOUT_MS = 10_000;

export interface OpsServer {
  readonly server: Server;
  /** What the status tells has changed: all who watch are told at once. */
  readonly changed: () => void;
  /** Closes it at once, but for a last event to all who watch: how the stop went, if there was one. */
  readonly close: (report: ShutdownReport | undefined) => Promise<void>;
}

/**
 * Opens the ops server: the same router and the same exchanges as the service's, without a gate. It answers in
 * every state, and nothing on it counts as in flight: an operator who watches the drain does not hold it up.
 * Undefined when it is off.
 * @throws StartError 78 when its address cannot be had
 */
export async function openOpsServer(
  config: Config,
  facts: OpsFacts & { readonly log: Logger },
): Promise<OpsServer | undefined> {
  const { opsHost, opsPort } = config;
  const { lifecycle, log } = facts;
  if (opsPort === 'off') return undefined;
  const router = new Router();
  const page = assemblePage();
  const around: ServerContext = { lifecycle, inFlight: new InFlight(), log };
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS });
  server.on('request', (request, response) => {
    const client = request.socket.remoteAddress ?? 'unknown';
    around.inFlight.add();
    const exchange = new Exchange(request, response, client, around);
    response.on('close', () => exchange.end());
    dispatch(router, exchange, response);
  });
  await listen(server, opsHost, opsPort, OPS_ADDRESS);
  const stream = new StatusStream(facts.status, log);
  addOperatorRoutes(router, facts, { page, stream }, hostCheck(config));
  log.info(`Ops server listening on ${urlOf(server)}`);
  return { server, changed: () => stream.changed(), close };

  async function close(report: ShutdownReport | undefined): Promise<void> {
    server.close();
    await stream.close(report);
    server.closeAllConnections();
  }
}
