import type { ServerResponse } from 'node:http';
import type { Exchange } from './exchange.ts';
import type { RequestAudit } from './request-audit.ts';
import { sendError } from './response.ts';

/**
 * Holds an answer back until it is on record: its first byte, and its end. What the handler writes meanwhile is kept
 * in order. An answer that cannot be recorded does not leave: the client gets a 500, or the end of the connection
 * when the handler has settled the head already.
 */
export function holdAnswer(exchange: Exchange, response: ServerResponse, audit: RequestAudit): void {
  const write = response.write.bind(response) as (...args: unknown[]) => boolean;
  const end = response.end.bind(response) as (...args: unknown[]) => ServerResponse;
  const flushHeaders = response.flushHeaders.bind(response);
  let held: (() => unknown)[] | undefined;
  let begun = false;
  let ended = false;
  let blocked = false;

  response.write = (...args: unknown[]): boolean => {
    if (ended) return false;
    if (begun && held === undefined) return write(...args);
    blocked = true;
    hold(() => write(...args));
    return false;
  };
  response.flushHeaders = (): void => {
    if (begun && held === undefined) flushHeaders();
    else hold(flushHeaders);
  };
  response.end = (...args: unknown[]): ServerResponse => {
    if (ended) return response;
    ended = true;
    exchange.answer();
    if (held !== undefined) held.push(() => finish(args));
    else finish(args);
    return response;
  };

  /** The first bytes wait for a record that says that the answer has begun. */
  function hold(step: () => unknown): void {
    // As in node:http: once something is written the head cannot change any more.
    if (!response.headersSent) response.writeHead(response.statusCode);
    if (held !== undefined) {
      held.push(step);
      return;
    }
    held = [step];
    void audit.keep(exchange, false, response.statusCode).then(release);
  }

  function release(kept: boolean): void {
    const steps = held ?? [];
    held = undefined;
    begun = true;
    if (!kept) {
      refuse();
      return;
    }
    let room: unknown = true;
    const done = attempt(() => {
      for (const step of steps) room = step();
    });
    // When the socket is full, node:http emits `drain` itself.
    if (done && blocked && room !== false && !ended) response.emit('drain');
  }

  function finish(args: unknown[]): void {
    void audit.keep(exchange, true, response.statusCode).then((kept) => {
      if (kept) attempt(() => end(...args));
      else refuse();
    });
  }

  /** What node:http refuses to write would have been thrown at the handler, so it counts as the handler's failure. */
  function attempt(step: () => void): boolean {
    try {
      step();
      return true;
    } catch (error) {
      ended = false;
      exchange.reopen();
      exchange.fail(error);
      return false;
    }
  }

  function refuse(): void {
    ended = true;
    if (response.headersSent) {
      response.destroy();
      return;
    }
    response.write = write as ServerResponse['write'];
    response.end = end as ServerResponse['end'];
    for (const name of response.getHeaderNames()) if (name !== 'connection') response.removeHeader(name);
    sendError(response, 500, 'The request was handled, but it could not be put on record.');
  }
}
