import t from 'tap';
import { RawClient } from './support/raw-client.ts';
import { ServiceProcess } from './support/service-process.ts';

t.test('a request on an idle kept-alive connection gets the 503 while the service stops', async (t) => {
  const service = await ServiceProcess.running(t);
  const busy = (await RawClient.open(service.port)).get('/hold/a');
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);
  await service.line('holding a');

  service.signal('SIGTERM');
  await service.line('Service state: STOPPING');
  const refused = await idle.get('/').response();

  t.equal(refused.status, 503);
  t.match(refused.headers, { connection: 'close', 'retry-after': '5', 'cache-control': 'no-store' });
  t.strictSame(JSON.parse(refused.body), {
    error: 'Service Unavailable',
    message: 'Service is shutting down. Please try again later.',
    service_state: 'stopping',
    fail_safe: true,
  });
  t.equal(await idle.ended, 'fin');

  service.release('a');
  const answer = await busy.response();
  t.equal(answer.status, 200);
  t.equal(answer.headers.connection, 'close');
  t.strictSame(await service.exited, { code: 0, signal: null });
});
