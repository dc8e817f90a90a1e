/** `idle-clients.ts PORT COUNT`: a process that holds connections open on which one request was answered, until it is killed. */
import { once } from 'node:events';
import { connect } from 'node:net';

const [port = 0, count = 0] = process.argv.slice(2).map(Number);
/** Connections opened at a time, below the backlog of any listening socket. */
const OPENED_AT_ONCE = 100;

for (let opened = 0; opened < count; opened += OPENED_AT_ONCE) {
  const now = Math.min(OPENED_AT_ONCE, count - opened);
  await Promise.all(Array.from({ length: now }, use));
}
console.log('open');

async function use(): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  socket.write('GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n');
  await once(socket, 'data');
}
