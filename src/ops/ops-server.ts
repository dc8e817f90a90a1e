import { createServer, type Server } from 'node:http';
import type { Logger } from 'pino';
import type { Config } from '../config/settings.ts';
import type { ShutdownReport } from '../lifecycle/last-shutdown.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import { listen, OPS_ADDRESS, urlOf } from '../platform/listen.ts';
import { dispatch } from '../server/dispatch.ts';
import { Exchange, type ServerContext } from '../server/exchange.ts';
import { InFlight } from '../server/in-flight.ts';
import { GatedResponse, REQUEST_ID } from '../server/messages.ts';
import { EMERGENCY_PATH } from '../server/request-audit.ts';
import { sendJson } from '../server/response.ts';
import { Router } from '../server/router.ts';
import type { TrustedProxies } from '../server/trusted-proxies.ts';
import { type Admin, emergencyShutdown } from './admin.ts';
import { hostCheck } from './host-check.ts';
import { type MetricsSnapshot, metrics } from './metrics.ts';
import { assemblePage } from './page.ts';
import type { Status } from './status.ts';
import { StatusStream } from './status-stream.ts';

/** A request to the ops server is a few lines; none needs longer. */
const REQUEST_TIMEOUT_MS = 10_000;

/** What the ops server tells, and whom it asks. */
export interface OpsFacts {
  readonly log: Logger;
  readonly admin: Admin;
  readonly proxies: TrustedProxies;
  readonly lifecycle: Lifecycle;
  /** Whether a load balancer should send requests. */
  readonly ready: () => boolean;
  readonly status: () => Promise<Status>;
  readonly metrics: () => Promise<MetricsSnapshot>;
}

export interface OpsServer {
  readonly server: Server;
  /** The status has changed: tells all open pages at once. */
  readonly changed: () => void;
  /** Sends all open pages a last event with the report of the stop, if there was one, and closes at once. */
  readonly close: (report: ShutdownReport | undefined) => Promise<void>;
}

/**
 * Opens the ops server: the same router and the same exchanges as the service's, without a gate. It answers in
 * every state, and nothing on it counts as in flight, so watching a drain does not hold it up. Undefined when it is off.
 * @throws ConfigError when its address cannot be had
 */
export async function openOpsServer(config: Config, facts: OpsFacts): Promise<OpsServer | undefined> {
  const { opsHost, opsPort } = config;
  const { lifecycle, log, proxies } = facts;
  if (opsPort === 'off') return undefined;
  const router = new Router();
  const page = assemblePage();
  const context: ServerContext = { lifecycle, inFlight: new InFlight(), log, proxies };
  const server = createServer({
    ServerResponse: GatedResponse,
    ...{ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS },
  });
  server.on('request', (request, response) => {
    context.inFlight.add();
    const exchange = new Exchange(request, response, request.socket.remoteAddress ?? 'unknown', context);
    response[REQUEST_ID] = exchange.id;
    response.on('close', () => exchange.end());
    dispatch(router, exchange, response);
  });
  await listen(server, opsHost, opsPort, OPS_ADDRESS);
  const stream = new StatusStream(facts.status, log);
  addRoutes();
  log.info(`Ops server listening on ${urlOf(server)}`);
  return { server, changed: () => stream.changed(), close };

  function addRoutes(): void {
    // Platforms call probes and scrapes by any name, and these tell no secrets.
    router.get('/livez', (_request, response) => sendJson(response, 200, { status: 'alive' }));
    router.get('/readyz', (_request, response) => {
      const ready = facts.ready();
      const status = ready ? 'ready' : 'not ready';
      sendJson(response, ready ? 200 : 503, { status, service_state: lifecycle.state });
    });
    router.get('/metrics', async (_request, response) => metrics(response, await facts.metrics()));
    // What a browser must not be tricked into reading or doing.
    const check = hostCheck(config);
    const events = check((request, response) => stream.open(request, response));
    const status = check(async (_request, response) => {
      response.setHeader('Cache-Control', 'no-store');
      sendJson(response, 200, await facts.status());
    });
    const emergency = check((request, response, context) =>
      emergencyShutdown(request, response, context, facts.admin, 'ops'),
    );
    router.get('/', check(page));
    router.get('/events', events);
    router.get('/status', status);
    router.post(EMERGENCY_PATH, emergency);
  }

  async function close(report: ShutdownReport | undefined): Promise<void> {
    server.close();
    await stream.close(report);
    server.closeAllConnections();
  }
}
