import { once } from 'node:events';
import type { Server } from 'node:http';
import { createServer, type Server as NetServer, type Socket } from 'node:net';
import type { Lifecycle } from '../../lifecycle/lifecycle.ts';
import { stopAccepting, urlOf } from '../../platform/listen.ts';
import { closeAcceptQueue } from '../accept-queue.ts';
import type { Listener } from '../in-process/listener.ts';
import type { Shares } from './shares.ts';

/** As node:http has it for its own. What comes is paused until it is known which process will read it. */
export const ACCEPT_OPTIONS = { pauseOnConnect: true, allowHalfOpen: true, noDelay: true } as const;

/** Connections from a socket that the controller holds for all workers, or that it has accepted itself. */
export class HandedListener implements Listener {
  readonly where = "the controller's address";
  readonly #lifecycle: Lifecycle;
  readonly #shares: Shares | undefined;
  readonly #passOn: (socket: Socket, failed: () => void) => void;
  readonly #acceptor: NetServer;
  #server: Server | undefined;
  #state: 'not open' | 'open' | 'closed' = 'not open';
  #connections = 0;

  /** @param passOn has another worker take a connection; calls `failed` when that is not possible */
  constructor(
    lifecycle: Lifecycle,
    shares: Shares | undefined,
    passOn: (socket: Socket, failed: () => void) => void,
  ) {
    this.#lifecycle = lifecycle;
    this.#shares = shares;
    this.#passOn = passOn;
    this.#acceptor = createServer(ACCEPT_OPTIONS, (socket) => this.#accept(socket));
  }

  get accepting(): boolean {
    return this.#state === 'open';
  }

  async open(server: Server): Promise<void> {
    this.#server = server;
    this.#state = 'open';
    // node:http arms the timer behind its time limits when it begins to listen, which this server never does.
    server.emit('listening');
  }

  get #most(): number {
    return this.#server?.maxConnections || Number.POSITIVE_INFINITY;
  }

  #accept(socket: Socket): void {
    // Once it stops, the others do too: one of them may be about to leave.
    const mayPassOn = this.accepting && this.#lifecycle.state === 'running';
    if (mayPassOn && this.#shares?.mustPassOn(this.#most)) this.#passOn(socket, () => this.take(socket));
    else this.#take(socket);
  }

  /** Takes a connection from the controller, or one that could not be passed on. */
  take(socket: Socket): void {
    this.#shares?.handed();
    this.#take(socket);
  }

  #take(socket: Socket): void {
    const server = this.#server;
    if (server === undefined || this.#connections >= this.#most) {
      socket.destroy();
      server?.emit('drop');
      return;
    }
    this.#count(1);
    socket.once('close', () => this.#count(-1));
    // What node:http asks of its own listening socket: a client that has said all it has to say still gets its answer.
    socket.allowHalfOpen = true;
    server.emit('connection', socket);
    socket.resume();
  }

  #count(difference: 1 | -1): void {
    this.#connections += difference;
    this.#shares?.count(difference);
  }

  /** Accepts from now on, from the controller's socket. @returns where @throws the system's error */
  async listen(handle: unknown): Promise<string> {
    const listening = once(this.#acceptor, 'listening');
    this.#acceptor.listen(handle);
    await listening;
    const where = urlOf(this.#acceptor);
    // It was told to leave meanwhile.
    if (!this.accepting) stopAccepting(this.#acceptor);
    return where;
  }

  closeQueue(arrivals: () => number): Promise<void> {
    return closeAcceptQueue(this.#acceptor, arrivals);
  }

  close(): void {
    this.#state = 'closed';
    stopAccepting(this.#acceptor);
  }
}
