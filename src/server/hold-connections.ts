import type { Server } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Keeps new connections from a server until it can answer them. Nothing that comes on them is lost.
 * @returns lets them go on, after `ready` has been called
 */
export function holdConnections(server: Server): (ready?: () => void) => void {
  const before = Object.getOwnPropertyDescriptor(server, 'emit');
  const { emit } = server;
  const sockets: Socket[] = [];
  server.emit = (name: string, ...args: unknown[]): boolean => {
    if (name !== 'connection') return Reflect.apply(emit, server, [name, ...args]);
    const [socket] = args as [Socket];
    sockets.push(socket.on('error', ignore));
    return true;
  };
  return (ready) => {
    if (before === undefined) Reflect.deleteProperty(server, 'emit');
    else Object.defineProperty(server, 'emit', before);
    ready?.();
    for (const socket of sockets) {
      socket.off('error', ignore);
      if (!socket.destroyed) server.emit('connection', socket);
    }
  };
}

/** A client that leaves before its turn. */
function ignore(): void {}
