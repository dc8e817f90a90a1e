import type { Server } from 'node:http';
import { deferred } from '../../platform/deferred.ts';
import { stopAccepting, urlOf } from '../../platform/listen.ts';
import { adoptServer, RouteLabels } from '../../server/adopt.ts';
import type { ServerParts } from '../../server/server.ts';
import { closeAcceptQueue } from '../accept-queue.ts';
import type { Listener } from './listener.ts';

/** The application's own servers. It opens their listening sockets, and we close them. */
export class AdoptedServers implements Listener {
  readonly labels = new RouteLabels();
  readonly #servers = new Set<Server>();
  readonly #listening = deferred<void>();
  /** Resolves when the drain is over: from then on the application closes what it likes. */
  readonly #drained = deferred<void>();

  get where(): string {
    return [...this.#servers].map(urlOf).join(', ');
  }

  get accepting(): boolean {
    return this.#accepting > 0;
  }

  get #accepting(): number {
    return [...this.#servers].filter(({ listening }) => listening).length;
  }

  get first(): Server | undefined {
    return this.#servers.values().next().value;
  }

  /** @param stop for an application that closes its last server: it has no other way to say that it ends */
  adopt(server: Server, parts: ServerParts, stop: () => void): void {
    this.#servers.add(server);
    if (server.listening) this.#listening.resolve();
    else server.once('listening', this.#listening.resolve);
    adoptServer(parts, server, this.labels, () => {
      if (parts.lifecycle.order === undefined) {
        if (!server.listening || this.#accepting > 1) return undefined;
        stop();
      }
      return this.#drained.promise;
    });
  }

  /** Comes back when the application has opened the first of them. */
  open(): Promise<void> {
    return this.#listening.promise;
  }

  async closeQueue(arrivals: () => number): Promise<void> {
    await Promise.all([...this.#servers].map((server) => closeAcceptQueue(server, arrivals)));
  }

  close(): void {
    for (const server of this.#servers) stopAccepting(server);
  }

  drained(): void {
    this.#drained.resolve();
  }
}
