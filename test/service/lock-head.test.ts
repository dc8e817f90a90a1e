import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a HEAD request gets the head of the 503, with the length of the body it does not get', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  await service.stop();

  const client = (await RawClient.open(service.port)).request('HEAD', '/');
  assertRefused(t, await client.response({ head: true }), { head: true });
  t.equal(await client.ended, 'fin');
  t.equal(client.pending, '', 'no body');

  await drain.finish(t);
});
