import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

const BYTES = 20 * 1024 * 1024;

t.test('a large answer reaches a slow reader to its last byte', async (t) => {
  const service = await ServiceProcess.running(t);
  const clients: RawClient[] = [];
  for (const path of ['/large/20', '/pieces/20']) {
    const client = (await RawClient.open(service.port)).get(path);
    client.socket.pause();
    clients.push(client);
  }
  // The one is ended and waits to be flushed; the other waits for room to write on.
  await service.statusWhen(({ in_flight }) => in_flight.count === 2);
  await service.stop();

  for (const client of clients) {
    client.socket.resume();
    await client.received(BYTES);
    const answer = await client.response();
    t.equal(answer.status, 200);
    t.equal(answer.body.length, BYTES);
  }
  for (const client of clients) t.equal(await client.ended, 'fin');
  t.strictSame(await service.exited, { code: 0, signal: null });
});
