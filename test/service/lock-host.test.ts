import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a request without a Host gets the 503 while the service stops, not a 400', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const before = (await RawClient.open(service.port)).write('GET / HTTP/1.1\r\n\r\n');
  t.equal((await before.response()).status, 400, 'while it runs, it is malformed');
  await service.stop();

  const client = (await RawClient.open(service.port)).write('GET / HTTP/1.1\r\n\r\n');
  assertRefused(t, await client.response());
  t.equal(await client.ended, 'fin');

  await drain.finish(t);
});
