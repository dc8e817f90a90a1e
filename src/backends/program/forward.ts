import {
  request as ask,
  type ClientRequest,
  type IncomingMessage,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Socket } from 'node:net';
import { type Duplex, pipeline } from 'node:stream';
import type { Host } from '../../control/backend.ts';
import { hasCode } from '../../error.ts';
import type { RouteLabels } from '../../server/adopt.ts';
import type { Exchange } from '../../server/exchange.ts';
import type { Gate } from '../../server/gate.ts';
import { hasValidHost } from '../../server/host.ts';
import { errorBody, sendError, sendJson } from '../../server/response.ts';
import { NO_TARGET, Route, type RouteMatch, type UpgradeHandler } from '../../server/router.ts';
import type { Application } from '../../server/server.ts';
import { describe } from '../in-process/in-process.ts';
import { expectsContinue, hasBody, headForClient, headForProgram, targetFor, trailersOf } from './headers.ts';
import { dropAtEnd, type Instance, optionsOf } from './instance.ts';
import type { Instances } from './instances.ts';

/** All that is passed on is one route: what a client has chosen is no label. */
const GUARDED = 'guarded';
/** Protocols that carry requests of their own would lead round the gate (h2c: RFC 7540 section 3.2). */
const CARRIES_REQUESTS = /^\s*(?:h2c|http|tls)/i;

export interface ForwarderParts {
  readonly host: Host;
  readonly gate: Gate;
  readonly instances: Instances;
  /** The path of health checks, which fail from the order to stop on; undefined for none. */
  readonly healthPath: () => string | undefined;
}

/** Gives each admitted request to an instance of the program, once, and its answer to the client. */
export class Forwarder implements Application {
  readonly labels: RouteLabels;
  readonly unrouted: RouteMatch;
  readonly #parts: ForwarderParts;
  readonly #upgrade: RouteMatch<UpgradeHandler> = {
    kind: 'route',
    route: new Route('UPGRADE', GUARDED, [], (...[request, stream, head, context]) =>
      this.#passUpgrade(request, stream, head, context as Exchange),
    ),
    values: [],
  };

  constructor(labels: RouteLabels, parts: ForwarderParts) {
    this.labels = labels;
    this.unrouted = labels.of('*');
    this.#parts = parts;
  }

  serve(exchange: Exchange, response: ServerResponse): void {
    const { request, method, url } = exchange;
    const { expect } = request.headers;
    const refuse = (status: number, message: string): void =>
      exchange.run(this.unrouted, response, () => sendError(response, status, message));
    if (!hasValidHost(request)) refuse(400, 'A request must have one Host header, with a valid value.');
    else if (NO_TARGET.test(url) || !isTarget(method, targetFor(url)))
      refuse(400, 'The path of the request is malformed.');
    else if (expect !== undefined && request.httpVersion === '1.1' && !expectsContinue(request))
      refuse(417, 'The only expectation that can be met is 100-continue.');
    else exchange.run(this.labels.of(method, GUARDED), response, () => this.#pass(exchange, response));
  }

  upgradeOf(request: IncomingMessage): RouteMatch<UpgradeHandler> | undefined {
    const isOurs = hasBody(request) || CARRIES_REQUESTS.test(request.headers.upgrade ?? '');
    return isOurs ? undefined : this.#upgrade;
  }

  #pass(exchange: Exchange, response: ServerResponse): void {
    const { host, healthPath } = this.#parts;
    const { state, order } = host.lifecycle;
    if (order !== undefined && exchange.path === healthPath()) {
      sendJson(response, 503, { status: 'shutting down', service_state: state });
      return;
    }
    void this.#choose().then((instance) => {
      // The client may have left meanwhile.
      if (response.destroyed) return;
      if (instance === undefined) this.#parts.gate.refuseAdmitted(response);
      else this.#send(exchange, response, instance);
    });
  }

  /**
   * The instance to ask; while requests are held, when there is one. What has come on idle connections is read before:
   * one that the program has closed is not found among them any more.
   */
  async #choose(): Promise<Instance | undefined> {
    const { instances } = this.#parts;
    await new Promise(setImmediate);
    if (instances.pick() === undefined) await instances.held();
    return instances.pick();
  }

  #send(exchange: Exchange, response: ServerResponse, instance: Instance): void {
    const { request } = exchange;
    const outgoing = this.#ask(exchange, instance, false);
    const leave = instance.enter();
    let answer: IncomingMessage | undefined;
    outgoing
      .once('close', leave)
      .on('error', (error) => this.#failed(exchange, response, instance, error))
      .on('information', (info) => passInformation(exchange, response, info))
      .on('continue', () => {
        if (expectsContinue(request) && !response.headersSent) response.writeContinue();
      })
      .on('response', (incoming) => {
        answer = incoming;
        this.#answer(exchange, response, instance, incoming);
        // What it has not read of the body by then nobody will.
        incoming.once('end', () => {
          if (!outgoing.writableFinished) outgoing.destroy();
        });
      });
    // The client is gone, or the request is cut.
    response.once('close', () => {
      if (answer?.complete !== true) outgoing.destroy();
    });
    if (hasBody(request)) passBody(request, outgoing);
    else outgoing.end();
  }

  #ask(exchange: Exchange, { address, agent }: Instance, isUpgrade: boolean): ClientRequest {
    return ask({
      ...{ ...optionsOf(address), agent, method: exchange.method },
      path: exchange.method === 'CONNECT' ? exchange.url : targetFor(exchange.url),
      headers: headForProgram(exchange, this.#parts.host.proxies, isUpgrade),
    });
  }

  #answer(exchange: Exchange, response: ServerResponse, instance: Instance, answer: IncomingMessage): void {
    const { statusCode = 502, statusMessage, headers } = answer;
    response.writeHead(statusCode, statusMessage, headForClient(answer));
    let left = headers['transfer-encoding'] === undefined ? Number(headers['content-length']) : Number.NaN;
    answer
      .on('data', (chunk: Buffer) => {
        left -= chunk.length;
        // The last bytes and the end leave in one write.
        if (left === 0) response.end(chunk);
        else if (!response.write(chunk)) answer.pause();
      })
      .on('end', () => {
        if (response.writableEnded) return;
        if (answer.rawTrailers.length > 0) response.addTrailers(trailersOf(answer));
        response.end();
      })
      .on('error', (error) => this.#failed(exchange, response, instance, error));
    response.on('drain', () => answer.resume());
  }

  /** The program's connection has failed before its answer was whole. */
  #failed(exchange: Exchange, response: ServerResponse, instance: Instance, error: Error): void {
    // The client has left, or has a whole answer.
    if (response.destroyed || response.writableEnded || exchange.isLost) return;
    const { host, gate } = this.#parts;
    if (isUnsent(error)) {
      this.#parts.instances.noteDeaf(instance);
      gate.refuseAdmitted(response);
      return;
    }
    host.cut([describe(exchange, LOST)]);
    if (response.headersSent) {
      exchange.cut();
      return;
    }
    exchange.lose();
    sendJson(response, 502, lostBody(host));
  }

  #passUpgrade(request: IncomingMessage, stream: Duplex, head: Buffer, exchange: Exchange): Promise<void> {
    stream.on('error', () => stream.destroy());
    return this.#choose().then((instance) => {
      if (stream.destroyed) return;
      if (instance === undefined) {
        this.#parts.gate.refuseAdmittedRaw(stream, exchange.id);
        endUpgrade(exchange, 503);
      } else this.#sendUpgrade(request, stream, head, exchange, instance);
    });
  }

  #sendUpgrade(
    request: IncomingMessage,
    stream: Duplex,
    head: Buffer,
    exchange: Exchange,
    instance: Instance,
  ): void {
    const { host, gate, instances } = this.#parts;
    const leave = instance.enter();
    const outgoing = this.#ask(exchange, instance, true);
    const taken = (answer: IncomingMessage, socket: Socket, first: Buffer): void => {
      socket.off('end', dropAtEnd);
      writeHead(stream, exchange, answer);
      stream.write(first);
      socket.write(head);
      pipeline(stream, socket, () => undefined);
      pipeline(socket, stream, (error) => {
        leave();
        if (hasCode(error, 'ECONNRESET', 'EPIPE') && !stream.destroyed) host.cut([describe(exchange, LOST)]);
        stream.destroy();
      });
    };
    outgoing.on('upgrade', taken).on('connect', (answer, socket, first) => {
      exchange.refuseUpgrade(answer.statusCode ?? 502);
      taken(answer, socket, first);
    });
    outgoing
      .on('response', (answer) => {
        exchange.refuseUpgrade(answer.statusCode ?? 502);
        writeHead(stream, exchange, answer);
        answer.once('close', leave);
        pipeline(answer, stream, () => request.socket.destroySoon());
      })
      .on('error', (error) => {
        leave();
        if (stream.destroyed || exchange.status !== 101) return;
        if (isUnsent(error)) {
          instances.noteDeaf(instance);
          gate.refuseAdmittedRaw(stream, exchange.id);
          endUpgrade(exchange, 503);
          return;
        }
        host.cut([describe(exchange, LOST)]);
        exchange.lose();
        const body = JSON.stringify(lostBody(host));
        stream.write(
          `HTTP/1.1 502 ${STATUS_CODES[502]}\r\nX-Request-Id: ${exchange.id}\r\n` +
            'Content-Type: application/json; charset=utf-8\r\n' +
            `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
        );
        endUpgrade(exchange, 502);
      });
    stream.once('close', () => outgoing.destroy());
    outgoing.end();
  }
}

const LOST = 'the program closed the connection before its answer was whole';

/** As a 503 of ours, but not safe to send again. */
function lostBody({ lifecycle }: Host): Readonly<Record<string, unknown>> {
  const message = 'The program failed to answer this request, which it may have processed.';
  return { ...errorBody(502, message), service_state: lifecycle.state, fail_safe: false };
}

/** Whether no byte of the request can have left. */
function isUnsent(error: NodeJS.ErrnoException): boolean {
  return error.syscall === 'connect';
}

/** What an origin server is asked for: a path, or the whole of it (RFC 9112 section 3.2.4). */
function isTarget(method: string, target: string): boolean {
  return target.startsWith('/') || (target === '*' && method === 'OPTIONS');
}

function passBody(request: IncomingMessage, outgoing: ClientRequest): void {
  request
    .on('data', (chunk: Buffer) => {
      if (outgoing.destroyed) return;
      if (!outgoing.write(chunk)) request.pause();
    })
    .on('end', () => {
      if (outgoing.destroyed) return;
      if (request.rawTrailers.length > 0) outgoing.addTrailers(trailersOf(request));
      outgoing.end();
    });
  outgoing.on('drain', () => request.resume()).on('close', () => request.resume());
}

/** 102 and 103; of others no reader knows. HTTP/1.0 has none (RFC 9110 section 15.2). */
function passInformation(
  { request }: Exchange,
  response: ServerResponse,
  { statusCode, headers }: Pick<IncomingMessage, 'headers'> & { statusCode: number },
): void {
  if (response.headersSent || request.httpVersion !== '1.1') return;
  if (statusCode === 102) response.writeProcessing();
  const { link } = headers;
  if (statusCode === 103 && link !== undefined)
    response.writeEarlyHints({ ...(headers as Record<string, string | string[]>), link });
}

/** The head of an answer to an upgrade: there is no response of node:http that could write it. */
function writeHead(stream: Duplex, { id, method }: Exchange, answer: IncomingMessage): void {
  const { statusCode = 502, statusMessage, headers } = answer;
  const lines = [`HTTP/1.1 ${statusCode} ${statusMessage}`];
  const head = headForClient(answer);
  if (headers['x-request-id'] === undefined) head.push('X-Request-Id', id);
  if (statusCode === 101) head.push('Connection', 'Upgrade', 'Upgrade', headers.upgrade ?? '');
  else if (method !== 'CONNECT') head.push('Connection', 'close');
  for (let at = 0; at < head.length; at += 2) lines.push(`${head[at]}: ${head[at + 1]}`);
  stream.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
}

/** The answer to an upgrade is written, and was none to go on with. */
function endUpgrade(exchange: Exchange, status: number): void {
  exchange.refuseUpgrade(status);
  exchange.request.socket.destroySoon();
}
