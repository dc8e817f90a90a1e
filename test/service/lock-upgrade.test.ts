import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('an Upgrade gets the 503 while the service stops, whether somebody takes it or not', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const before = await RawClient.open(service.port);
  t.equal((await before.get('/').response()).status, 200);
  await service.stop();

  for (const client of [
    before.upgrade('/socket/late'),
    (await RawClient.open(service.port)).upgrade('/socket/late'),
    (await RawClient.open(service.port)).upgrade('/'),
    (await RawClient.open(service.port)).upgrade('/nowhere'),
  ]) {
    assertRefused(t, await client.response());
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '');
  }

  await drain.finish(t);
});

t.test('an Upgrade with a body gets the 503 while the service stops, and no reset', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  await service.stop();

  for (const path of ['/socket/late', '/']) {
    const client = await RawClient.open(service.port);
    const body = Buffer.alloc(4 * 1024 * 1024);
    client.request('POST', path, {
      Connection: 'Upgrade',
      Upgrade: 'test',
      'Content-Length': `${body.length}`,
    });
    client.write(body);
    assertRefused(t, await client.response());
    t.equal(await client.ended, 'fin');
    client.destroy();
  }

  await drain.finish(t);
});

t.test('a CONNECT gets the 503 while the service stops', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  await service.stop();

  const client = await RawClient.open(service.port);
  client.write('CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n');
  assertRefused(t, await client.response());
  t.equal(await client.ended, 'fin');
  t.equal(client.pending, '');

  await drain.finish(t);
});

for (const [what, head] of [
  ['an Upgrade that somebody takes', 'GET /socket/late HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: test'],
  ['an Upgrade that nobody takes', 'GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: test'],
  ['a CONNECT', 'CONNECT example.org:443 HTTP/1.1'],
] as const) {
  t.test(`${what} behind a request in flight gets the 503 after its answer`, async (t) => {
    const service = await ServiceProcess.running(t);
    const drain = await holdDrain(service);
    const client = (await RawClient.open(service.port)).get('/hold/a');
    await service.line('holding a');
    await service.stop();

    client.write(`${head}\r\nHost: test\r\n\r\n`);
    // The service has read it when it has answered what came later.
    assertRefused(t, await (await RawClient.open(service.port)).get('/').response());
    service.release('a');

    const first = await client.response();
    t.equal(first.status, 200);
    t.not(first.headers.connection, 'close');
    assertRefused(t, await client.response());
    t.equal(await client.ended, 'fin');

    await drain.finish(t);
  });
}
