import { request as ask, type ClientRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Dispatcher } from 'undici';
import type { Host } from '../../control/backend.ts';
import type { Exchange } from '../../server/exchange.ts';
import type { Gate } from '../../server/gate.ts';
import { errorBody, sendJson } from '../../server/response.ts';
import { describe } from '../in-process/in-process.ts';
import { expectsContinue, hasBody, headForClient, headForProgram, targetFor, trailersOf } from './headers.ts';
import { type Instance, optionsOf } from './instance.ts';
import type { Instances } from './instances.ts';

export interface PassageParts {
  readonly host: Host;
  readonly gate: Gate;
  readonly instances: Instances;
}

/**
 * The way of one request through an instance of the program, and of its answer to the client. The request is sent once:
 * whatever happens after its first byte, it is not sent again.
 *
 * undici carries what has no body, which most requests are: it takes less work than node:http's client. That one carries
 * the rest, because undici has no `Expect` and no trailers for a request, cannot send a head before a body, and destroys
 * a body that the program answers without having read it, and the client's connection with it.
 */
export class Passage implements Dispatcher.DispatchHandler {
  readonly #exchange: Exchange;
  readonly #response: ServerResponse;
  readonly #instance: Instance;
  readonly #parts: PassageParts;
  readonly #leave: () => void;
  /** Gives the request up. Set when its first byte is about to leave. */
  #abort: (() => void) | undefined;
  #resume: () => void = () => undefined;
  #isOver = false;
  /** Bytes of the answer's body to come; NaN when the program has not said how many. */
  #left = Number.NaN;

  constructor(exchange: Exchange, response: ServerResponse, instance: Instance, parts: PassageParts) {
    this.#exchange = exchange;
    this.#response = response;
    this.#instance = instance;
    this.#parts = parts;
    this.#leave = instance.enter();
    // The client is gone, or the request is cut.
    response.once('close', () => {
      if (!this.#isOver) this.#abort?.();
    });
  }

  /** Whether undici can carry it. */
  static isPlain({ request, url }: Exchange): boolean {
    return !hasBody(request) && request.headers.expect === undefined && url !== '*';
  }

  sendPlain(): void {
    const { method, url } = this.#exchange;
    const headers = headForProgram(this.#exchange, this.#parts.host.proxies);
    this.#instance.pool.dispatch(
      { path: targetFor(url), method: method as Dispatcher.HttpMethod, headers },
      this,
    );
  }

  onConnect(abort: () => void): void {
    this.#abort = abort;
    if (this.#response.destroyed) abort();
  }

  onHeaders(status: number, headers: Buffer[], resume: () => void, reason: string): boolean {
    this.#resume = resume;
    const raw = headers.map((text) => text.toString('latin1'));
    if (status < 200) this.#inform(status, raw);
    else this.#begin(status, reason, raw);
    return true;
  }

  onData(chunk: Buffer): boolean {
    this.#left -= chunk.length;
    if (this.#left !== 0) {
      const hasRoom = this.#response.write(chunk);
      if (!hasRoom) this.#response.once('drain', this.#resume);
      return hasRoom;
    }
    // The last bytes and the end leave in one write.
    this.#response.end(chunk);
    return true;
  }

  onComplete(trailers: readonly (Buffer | string)[] | null): void {
    this.#over();
    const response = this.#response;
    if (response.writableEnded) return;
    if (trailers !== null && trailers.length > 0) response.addTrailers(trailersOf(trailers.map(latin1)));
    response.end();
  }

  /** Its connection has failed before the answer was whole. */
  onError(error: Error): void {
    if (this.#isOver) return;
    this.#over();
    const [exchange, response] = [this.#exchange, this.#response];
    // The client has left, or has a whole answer.
    if (response.destroyed || response.writableEnded || exchange.isLost) return;
    const { host, gate, instances } = this.#parts;
    if (this.#abort === undefined || isUnsent(error)) {
      void instances.noteDeaf(this.#instance);
      const other = Passage.isPlain(exchange) ? instances.pick() : undefined;
      if (other === undefined) gate.refuseAdmitted(response);
      else new Passage(exchange, response, other, this.#parts).sendPlain();
      return;
    }
    host.cut([describe(exchange, LOST)]);
    if (response.headersSent) exchange.cut();
    else {
      exchange.lose();
      sendJson(response, 502, lostBody(host));
    }
  }

  #over(): void {
    this.#isOver = true;
    this.#leave();
  }

  /** By node:http's client. */
  send(): void {
    const { request } = this.#exchange;
    const outgoing = requestOf(
      this.#exchange,
      this.#instance,
      headForProgram(this.#exchange, this.#parts.host.proxies),
    );
    this.#abort = () => outgoing.destroy();
    outgoing
      .on('error', (error) => this.onError(error))
      .on('continue', () => {
        if (expectsContinue(request) && !this.#response.headersSent) this.#response.writeContinue();
      })
      .on('information', ({ statusCode, rawHeaders }) => this.#inform(statusCode, rawHeaders))
      .on('response', (answer) => this.#take(answer, outgoing));
    if (!hasBody(request)) outgoing.end();
    else {
      // What has not come may be long in coming, and the program may answer before.
      if (request.readableLength === 0) outgoing.flushHeaders();
      passBody(request, outgoing);
    }
  }

  #take(answer: IncomingMessage, outgoing: ClientRequest): void {
    this.#resume = () => answer.resume();
    answer
      .on('error', (error) => this.onError(error))
      .on('data', (chunk) => {
        if (!this.onData(chunk)) answer.pause();
      })
      .on('end', () => {
        this.onComplete(answer.rawTrailers);
        // What it has not read of the body by now nobody will.
        if (!outgoing.writableFinished) outgoing.destroy();
      });
    this.#begin(answer.statusCode ?? 502, answer.statusMessage ?? '', answer.rawHeaders);
  }

  #begin(status: number, reason: string, raw: readonly string[]): void {
    const { head, length } = headForClient(raw);
    this.#left = length;
    this.#response.writeHead(status, reason, head);
  }

  /** 102 and 103; of others no reader knows. HTTP/1.0 has none (RFC 9110 section 15.2). */
  #inform(status: number, raw: readonly string[]): void {
    const response = this.#response;
    if (response.headersSent || this.#exchange.request.httpVersion !== '1.1') return;
    if (status === 102) response.writeProcessing();
    if (status !== 103) return;
    const hints: Record<string, string[]> = {};
    for (let at = 0; at < raw.length; at += 2) {
      const name = raw[at]?.toLowerCase() ?? '';
      hints[name] = [...(hints[name] ?? []), raw[at + 1] ?? ''];
    }
    if (hints.link !== undefined) response.writeEarlyHints({ link: hints.link });
  }
}

/** In words that follow "because". */
export const LOST = 'the program closed the connection before its answer was whole';

/** As a 503 of ours, but not safe to send again. */
export function lostBody({ lifecycle }: Host): Readonly<Record<string, unknown>> {
  const message = 'The program failed to answer this request, which it may have processed.';
  return { ...errorBody(502, message), service_state: lifecycle.state, fail_safe: false };
}

/** Whether no byte of the request can have left. */
export function isUnsent(error: NodeJS.ErrnoException): boolean {
  return error.syscall === 'connect';
}

/** What node:http's client sends to an instance. */
export function requestOf(
  { method, url }: Exchange,
  { address, agent }: Instance,
  headers: string[],
): ClientRequest {
  const path = method === 'CONNECT' ? url : targetFor(url);
  return ask({ ...optionsOf(address), agent, method, path, headers });
}

function latin1(text: Buffer | string): string {
  return typeof text === 'string' ? text : text.toString('latin1');
}

function passBody(request: IncomingMessage, outgoing: ClientRequest): void {
  request
    .on('data', (chunk: Buffer) => {
      if (!outgoing.destroyed && !outgoing.write(chunk)) request.pause();
    })
    .on('end', () => {
      if (outgoing.destroyed) return;
      if (request.rawTrailers.length > 0) outgoing.addTrailers(trailersOf(request.rawTrailers));
      outgoing.end();
    });
  outgoing.on('drain', () => request.resume()).on('close', () => request.resume());
}
