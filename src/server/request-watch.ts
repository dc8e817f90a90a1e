import { type Channel, channel } from 'node:diagnostics_channel';
import type { ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import type { Exchange, Outcome } from './exchange.ts';
import type { RefusalReason } from './gate.ts';
import { REQUEST_ID } from './messages.ts';
import type { TrustedProxies } from './trusted-proxies.ts';

const start = channel('master-agent:request:start');
const end = channel('master-agent:request:end');
const refused = channel('master-agent:request:refused');

/** A path in the log is cut: what it begins with tells enough. */
const MOST_PATH_CHARACTERS = 2_000;

/** What all know of a request. Upgrades have no response. */
type Asked = Pick<Exchange, 'id' | 'client' | 'request' | 'response'>;

export interface WatchParts {
  readonly log: Logger;
  readonly proxies: TrustedProxies;
  /** Whether each request gets a line in the log at its end. */
  readonly logsAccess: () => boolean;
  /** Nobody has sent its requests, so nobody else hears of them. */
  readonly isRehearsal?: boolean | undefined;
}

/** Tells those who watch requests of each: subscribers of node:diagnostics_channel, and the log if `ACCESS_LOG` is on. */
export class RequestWatch {
  readonly #log: Logger;
  readonly #proxies: TrustedProxies;
  readonly #logsAccess: () => boolean;
  readonly #isRehearsal: boolean;

  constructor({ log, proxies, logsAccess, isRehearsal = false }: WatchParts) {
    this.#log = log;
    this.#proxies = proxies;
    this.#logsAccess = logsAccess;
    this.#isRehearsal = isRehearsal;
  }

  /** Serves an admitted request; what a subscriber has bound to the channel is the handler's store. */
  serve<R>(exchange: Exchange, serve: (exchange: Exchange, response: R) => void, response: R): void {
    if (this.#has(start)) start.runStores(messageOf(exchange), serve, undefined, exchange, response);
    else serve(exchange, response);
  }

  ended(exchange: Exchange, outcome: Outcome, nowMs: number): void {
    if (this.#has(end)) {
      const { status, startedMs } = exchange;
      end.publish({ ...messageOf(exchange), status, outcome, durationMs: nowMs - startedMs });
    }
    if (this.#logsAccess()) {
      const { trace, path, status, startedMs } = exchange;
      // Of a millisecond, a tenth is told.
      const duration_ms = Math.round((nowMs - startedMs) * 10) / 10;
      this.#write(exchange, path, status, { trace, outcome, duration_ms });
    }
  }

  /** A request is answered with 503 and not dispatched. */
  refused(response: ServerResponse, peer: string, reason: RefusalReason): void {
    if (!this.#has(refused) && !this.#logsAccess()) return;
    const { [REQUEST_ID]: id = '', req: request } = response;
    const asked = { id, client: this.#proxies.clientOf(peer, request), request, response };
    if (this.#has(refused)) refused.publish({ ...messageOf(asked), reason });
    const [path = ''] = (request.url ?? '').split('?', 1);
    if (this.#logsAccess()) this.#write(asked, path, 503, { outcome: 'refused', reason });
  }

  /** What cannot be read as a request is answered by hand. */
  malformed(id: string, client: string, status: number): void {
    if (this.#logsAccess())
      this.#log.info({ request: id, client, status, outcome: 'malformed' }, `Malformed request: ${status}`);
  }

  #has(channel: Channel): boolean {
    return channel.hasSubscribers && !this.#isRehearsal;
  }

  #write({ id, client, request: { method } }: Asked, path: string, status: number, how: object): void {
    const shown = path.slice(0, MOST_PATH_CHARACTERS);
    this.#log.info(
      { request: id, client, method, path: shown, status, ...how },
      `${method} ${shown} ${status || 'unanswered'}`,
    );
  }
}

function messageOf({ id, client, request, response }: Asked): Asked {
  return { id, client, request, response };
}
