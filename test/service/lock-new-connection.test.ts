import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a request on a new connection gets the 503 while the service stops', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  await service.stop();

  for (const method of ['GET', 'POST', 'DELETE', 'OPTIONS']) {
    const client = (await RawClient.open(service.port)).request(method, '/');
    assertRefused(t, await client.response());
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '', 'one answer');
  }
  for (const path of ['/health', '/nowhere', '/%zz', '/hold/next']) {
    const client = (await RawClient.open(service.port)).get(path);
    assertRefused(t, await client.response());
    t.equal(await client.ended, 'fin');
  }
  t.notMatch(service.output, 'holding next', 'no handler was reached');

  await drain.finish(t);
  t.equal(service.report().rejected, 8);
});

t.test('Retry-After says what RETRY_AFTER is', async (t) => {
  const service = await ServiceProcess.running(t, { env: { RETRY_AFTER: '17' } });
  const drain = await holdDrain(service);
  await service.stop();

  const client = (await RawClient.open(service.port)).get('/');
  t.equal((await client.response()).headers['retry-after'], '17');

  await drain.finish(t);
});
