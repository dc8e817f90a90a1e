import type { Server } from 'node:http';
import {
  handedSocket,
  listen,
  listenOnHanded,
  SERVICE_ADDRESS,
  stopAccepting,
  urlOf,
} from '../../platform/listen.ts';
import { closeAcceptQueue } from '../accept-queue.ts';

/** Where connections come from: a listening socket of this process, or a controller that hands them over. */
export interface Listener {
  /** For people. */
  readonly where: string;
  readonly accepting: boolean;
  /** From now on connections come. @throws ConfigError when they cannot */
  open(server: Server): Promise<void>;
  /** Accepts what is queued, then closes. @param arrivals grows with each connection and each request */
  closeQueue(arrivals: () => number): Promise<void>;
  /** No more come. Those that are open stay as they are. */
  close(): void;
}

/** A listening socket of the process's own: bound here, or opened by systemd for it. */
export class OwnListener implements Listener {
  readonly #host: string;
  readonly #port: number;
  #server: Server | undefined;

  constructor(host: string, port: number) {
    this.#host = host;
    this.#port = port;
  }

  get where(): string {
    return this.#server === undefined ? 'no address' : urlOf(this.#server);
  }

  get accepting(): boolean {
    return this.#server?.listening === true;
  }

  async open(server: Server): Promise<void> {
    this.#server = server;
    const fd = handedSocket();
    if (fd === undefined) await listen(server, this.#host, this.#port, SERVICE_ADDRESS);
    else await listenOnHanded(server, fd);
  }

  async closeQueue(arrivals: () => number): Promise<void> {
    if (this.#server !== undefined) await closeAcceptQueue(this.#server, arrivals);
  }

  close(): void {
    if (this.#server !== undefined) stopAccepting(this.#server);
  }
}
