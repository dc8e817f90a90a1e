import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { RouteLabels } from '../../server/adopt.ts';
import { Connection } from '../../server/connections.ts';
import type { Exchange } from '../../server/exchange.ts';
import { hasValidHost } from '../../server/host.ts';
import { sendError, sendJson } from '../../server/response.ts';
import { NO_TARGET, Route, type RouteMatch, type UpgradeHandler } from '../../server/router.ts';
import type { Application } from '../../server/server.ts';
import { expectsContinue, hasBody, targetFor } from './headers.ts';
import type { Instance } from './instance.ts';
import { Passage, type PassageParts } from './passage.ts';
import { passUpgrade, refuseUpgrade } from './tunnel.ts';

/** All that is passed on is one route: what a client has chosen is no label. */
const GUARDED = 'guarded';
/** Protocols that carry requests of their own would lead round the gate (h2c: RFC 7540 section 3.2). */
const CARRIES_REQUESTS = /(?:^|,)\s*(?:h2c|http|tls)/i;

/** Gives each admitted request to an instance of the program, as soon as there is one while requests are held. */
export class Forwarder implements Application {
  readonly labels = new RouteLabels();
  readonly unrouted = this.labels.of('*');
  readonly #parts: PassageParts;
  readonly #upgrade: RouteMatch<UpgradeHandler> = {
    kind: 'route',
    route: new Route('UPGRADE', GUARDED, [], (_request, stream, head, context) =>
      this.#passUpgrade(context as Exchange, stream, head),
    ),
    values: [],
  };

  constructor(parts: PassageParts) {
    this.#parts = parts;
  }

  serve(exchange: Exchange, response: ServerResponse): void {
    const { request, method, url } = exchange;
    const { expect } = request.headers;
    const refuse = (status: number, message: string): void =>
      exchange.run(this.unrouted, response, () => sendError(response, status, message));
    if (!hasValidHost(request)) refuse(400, 'A request must have one Host header, with a valid value.');
    else if (NO_TARGET.test(url) || !isTarget(method, url))
      refuse(400, 'The path of the request is malformed.');
    else if (expect !== undefined && request.httpVersion === '1.1' && !expectsContinue(request))
      refuse(417, 'The only expectation that can be met is 100-continue.');
    else exchange.run(this.labels.of(method, GUARDED), response, () => this.#passInTurn(exchange, response));
  }

  upgradeOf(request: IncomingMessage): RouteMatch<UpgradeHandler> | undefined {
    const isOurs = hasBody(request) || CARRIES_REQUESTS.test(request.headers.upgrade ?? '');
    return isOurs ? undefined : this.#upgrade;
  }

  /**
   * Pipelined requests go to the program one after the other: on connections of their own they could overtake each
   * other, which only safe methods may (RFC 9112 section 9.3.2).
   */
  #passInTurn(exchange: Exchange, response: ServerResponse): void {
    const connection = Connection.of(exchange.request.socket);
    if (connection === undefined || connection.current === exchange) {
      this.#pass(exchange, response);
      return;
    }
    const passOn = (): void => {
      // The client may have left instead.
      if (!exchange.request.socket.destroyed) this.#pass(exchange, response);
    };
    for (const before of connection.exchanges())
      if (before.next === exchange) before.response?.once('close', passOn);
  }

  #pass(exchange: Exchange, response: ServerResponse): void {
    const { host, instances } = this.#parts;
    const { state, order } = host.lifecycle;
    if (order !== undefined && exchange.path === instances.healthPath) {
      // In a lame duck: requests are still served.
      sendJson(response, 503, { status: 'shutting down', service_state: state });
      return;
    }
    const instance = instances.pick();
    if (instance !== undefined && Passage.isPlain(exchange))
      new Passage(exchange, response, instance, this.#parts).sendPlain();
    else void this.#passLater(exchange, response);
  }

  async #passLater(exchange: Exchange, response: ServerResponse): Promise<void> {
    const instance = await this.#choose();
    // The client may have left meanwhile.
    if (response.destroyed) return;
    if (instance === undefined) this.#parts.gate.refuseAdmitted(response);
    else new Passage(exchange, response, instance, this.#parts).send();
  }

  /**
   * What has come on idle connections is read before: one that the program has closed is not found among them any more.
   * undici does the same by itself.
   */
  async #choose(): Promise<Instance | undefined> {
    const { instances } = this.#parts;
    await new Promise(setImmediate);
    if (instances.pick() === undefined) await instances.held();
    return instances.pick();
  }

  async #passUpgrade(exchange: Exchange, stream: Duplex, head: Buffer): Promise<void> {
    stream.on('error', () => stream.destroy());
    const instance = await this.#choose();
    if (stream.destroyed) return;
    if (instance === undefined) refuseUpgrade(exchange, stream, this.#parts.gate);
    else passUpgrade(exchange, stream, head, instance, this.#parts);
  }
}

/** What an origin server is asked for: a path, or the whole of it (RFC 9112 section 3.2.4). */
function isTarget(method: string, url: string): boolean {
  const target = targetFor(url);
  return target.startsWith('/') || (target === '*' && method === 'OPTIONS');
}
