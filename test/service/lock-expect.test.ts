import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a request that expects 100-continue gets the 503 and no 100 while the service stops', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const before = await RawClient.open(service.port);
  before.request('POST', '/upload', { Expect: '100-continue', 'Content-Length': '5' });
  t.equal((await before.response()).status, 100, 'while it runs, it continues');
  t.match(await before.write('hello').response(), { status: 200, body: '{"bytes":5}' });
  await service.stop();

  const fresh = await RawClient.open(service.port);
  for (const client of [before, fresh]) {
    client.request('POST', '/upload', { Expect: '100-continue', 'Content-Length': '5' });
    assertRefused(t, await client.response());
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '');
  }
  const insistent = await RawClient.open(service.port);
  insistent.request('POST', '/upload', { Expect: '100-continue', 'Content-Length': '5' }).write('hello');
  assertRefused(t, await insistent.response());
  t.equal(await insistent.ended, 'fin');

  await drain.finish(t);
});

t.test('a request that expects something else gets the 503 too, not a 417', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const before = (await RawClient.open(service.port)).request('GET', '/', { Expect: 'a miracle' });
  t.equal((await before.response()).status, 417, 'while it runs, it cannot be met');
  await service.stop();

  const client = (await RawClient.open(service.port)).request('GET', '/', { Expect: 'a miracle' });
  assertRefused(t, await client.response());
  t.equal(await client.ended, 'fin');

  await drain.finish(t);
});
