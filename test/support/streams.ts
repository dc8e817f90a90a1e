import { once } from 'node:events';
import { connect } from 'node:net';
import { WebSocket } from 'ws';

/** A stream of a client's, and how it has ended. */
export interface Ended {
  /** Monotonic milliseconds of the end. */
  readonly atMs: number;
  /** Of a WebSocket: its close code and reason. */
  readonly code?: number;
  readonly reason?: string;
  /** Of server-sent events: all that came, from the head on. */
  readonly text?: string;
}

export interface Stream {
  readonly ended: Promise<Ended>;
  destroy(): void;
}

/** Opens server-sent events, and comes back when the first one is there. */
export async function openEvents(port: number, path = '/events'): Promise<Stream> {
  const socket = connect({ port, host: '127.0.0.1' });
  let text = '';
  socket.on('error', () => undefined);
  const begun = new Promise<void>((resolve) => {
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      if (text.includes('data: ')) resolve();
    });
  });
  const ended = once(socket, 'close').then(() => ({ atMs: performance.now(), text }));
  socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n`);
  await Promise.race([begun, ended]);
  return { ended, destroy: () => socket.destroy() };
}

/** Opens a WebSocket, and comes back when it is open. */
export async function openSocket(port: number, path = '/chat'): Promise<Stream> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { perMessageDeflate: false });
  const ended = once(socket, 'close').then(([code, reason]) => ({
    atMs: performance.now(),
    code,
    reason: String(reason),
  }));
  await once(socket, 'open');
  return { ended, destroy: () => socket.terminate() };
}

/** So many at a time: more would overflow the accept queue. */
const AT_ONCE = 100;

/** Opens `count` of each. */
export async function openStreams(
  port: number,
  count: number,
): Promise<{ events: Stream[]; sockets: Stream[] }> {
  const events: Stream[] = [];
  const sockets: Stream[] = [];
  while (events.length < count) {
    const more = Array.from({ length: Math.min(AT_ONCE, count - events.length) });
    events.push(...(await Promise.all(more.map(() => openEvents(port)))));
    sockets.push(...(await Promise.all(more.map(() => openSocket(port)))));
  }
  return { events, sockets };
}
