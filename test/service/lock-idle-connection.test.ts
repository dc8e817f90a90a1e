import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a request on an idle kept-alive connection gets the 503 while the service stops', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);
  await service.stop();

  assertRefused(t, await idle.get('/').response());
  t.equal(await idle.ended, 'fin');

  await drain.finish(t);
});

t.test('of pipelined requests on an idle connection each gets the 503, and the last closes', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);
  await service.stop();

  idle.write('GET / HTTP/1.1\r\nHost: test\r\n\r\n'.repeat(5));
  for (const last of [false, false, false, false, true]) assertRefused(t, await idle.response(), { last });
  t.equal(await idle.ended, 'fin');
  t.equal(idle.pending, '');

  await drain.finish(t);
});
