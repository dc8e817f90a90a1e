import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a request over HTTP/1.0 gets the 503 while the service stops', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const kept = (await RawClient.open(service.port)).write('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n');
  t.match(await kept.response(), { status: 200, headers: { connection: 'keep-alive' } });
  await service.stop();

  const fresh = await RawClient.open(service.port);
  for (const client of [fresh.write('GET / HTTP/1.0\r\n\r\n'), kept.write('GET / HTTP/1.0\r\n\r\n')]) {
    assertRefused(t, await client.response());
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '');
  }
  const persistent = await RawClient.open(service.port);
  persistent.write('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n');
  assertRefused(t, await persistent.response());
  t.equal(await persistent.ended, 'fin');

  await drain.finish(t);
});
