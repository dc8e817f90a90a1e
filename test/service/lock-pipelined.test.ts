import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a request pipelined behind one in flight gets the 503 after its answer', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  await service.stop();

  client.get('/hold/b');
  await service.statusWhen(({ rejected }) => rejected.total === 1);
  service.release('a');

  const first = await client.response();
  t.equal(first.status, 200);
  t.strictSame(JSON.parse(first.body), { held: 'a' });
  t.not(first.headers.connection, 'close', 'the second would be lost');
  assertRefused(t, await client.response());
  t.equal(await client.ended, 'fin');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.notMatch(service.output, 'holding b');
});

t.test(
  'of three requests pipelined behind one in flight each gets the 503, and the last closes',
  async (t) => {
    const service = await ServiceProcess.running(t);
    const client = (await RawClient.open(service.port)).get('/hold/a');
    await service.line('holding a');
    await service.stop();

    // One by one, so that the service reads each on its own.
    for (let count = 1; count <= 3; count += 1) {
      client.get('/');
      await service.statusWhen(({ rejected }) => rejected.total === count);
    }
    service.release('a');

    const first = await client.response();
    t.equal(first.status, 200);
    t.not(first.headers.connection, 'close');
    for (const last of [false, false, true]) assertRefused(t, await client.response(), { last });
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '');
    t.strictSame(await service.exited, { code: 0, signal: null });
  },
);

t.test('one request is in flight and the next is read in the same turn as the signal', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const client = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');

  client.get('/hold/b');
  await service.stop();
  // Whether b was admitted is decided by which came first; either way both are answered, and the second closes.
  service.release('a');
  service.release('b');
  const first = await client.response();
  t.equal(first.status, 200);
  t.not(first.headers.connection, 'close');
  const second = await client.response();
  t.ok(second.status === 200 || second.status === 503);
  t.equal(second.headers.connection, 'close');
  t.equal(await client.ended, 'fin');

  await drain.finish(t);
});
