import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import t, { type Test } from 'tap';
import { closeAcceptQueue } from '../../src/backends/accept-queue.ts';

async function listening(t: Test): Promise<Server> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return server;
}

t.test('while connections still come the socket stays open', async (t) => {
  const server = await listening(t);
  // Each look finds one more. Twice for each round: before it and after it.
  let arrivals = 0;
  const comeFor = 2 * 15;
  await closeAcceptQueue(server, () => {
    if (arrivals < comeFor) {
      t.ok(server.listening, `arrival ${arrivals}`);
      arrivals += 1;
    }
    return arrivals;
  });
  t.equal(arrivals, comeFor, 'it was looked at until none came');
  t.notOk(server.listening);
});

t.test('it is closed at last, also when they never stop', async (t) => {
  const server = await listening(t);
  let arrivals = 0;
  await closeAcceptQueue(server, () => {
    arrivals += 1;
    return arrivals;
  });
  t.notOk(server.listening);
});

t.test('with nobody there it is closed at the first look', async (t) => {
  const server = await listening(t);
  let looks = 0;
  await closeAcceptQueue(server, () => {
    looks += 1;
    return 0;
  });
  t.equal(looks, 2);
  t.notOk(server.listening);
});
