import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import type { Listener } from '../in-process/listener.ts';

/** Connections that the controller has accepted. */
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
    // node:http arms the timer behind its time limits when it begins to listen, and this server never will.
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

  close(): void {
    this.#state = 'closed';
  }
}
