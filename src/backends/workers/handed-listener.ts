import { once } from 'node:events';
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { stopAccepting, urlOf } from '../../platform/listen.ts';
import type { Listener } from '../in-process/listener.ts';

/** What comes of connections that the controller has accepted, or of a socket that it holds for this process. */
export class HandedListener implements Listener {
  readonly where = "the controller's address";
  #server: Server | undefined;
  #state: 'not open' | 'open' | 'closed' = 'not open';
  #connections = 0;

  get accepting(): boolean {
    return this.#state === 'open';
  }

  async open(server: Server): Promise<void> {
    this.#server = server;
    this.#state = 'open';
    // node:http arms the timer behind its time limits when it begins to listen, and this server may never do so.
    server.emit('listening');
  }

  take(socket: Socket): void {
    const server = this.#server;
    const limit = server?.maxConnections ?? 0;
    if (server === undefined || (limit > 0 && this.#connections >= limit)) {
      socket.destroy();
      server?.emit('drop');
      return;
    }
    this.#connections += 1;
    socket.once('close', () => {
      this.#connections -= 1;
    });
    // What node:http asks of its own listening socket: a client that has said all it has to say still gets its answer.
    socket.allowHalfOpen = true;
    server.emit('connection', socket);
    socket.resume();
  }

  /** Accepts from now on, from the controller's socket. @returns where @throws the system's error */
  async listen(handle: unknown): Promise<string> {
    const server = this.#server;
    if (server === undefined) throw new Error('not open');
    const listening = once(server, 'listening');
    server.listen(handle);
    await listening;
    // It was told to leave meanwhile.
    if (!this.accepting) stopAccepting(server);
    return urlOf(server);
  }

  close(): void {
    this.#state = 'closed';
    if (this.#server !== undefined) stopAccepting(this.#server);
  }
}
