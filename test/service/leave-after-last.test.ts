import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('the service stays until the last in-flight request has ended, and then leaves', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const first = (await RawClient.open(service.port)).get('/hold/a');
  const second = (await RawClient.open(service.port)).get('/stream/b');
  const idle = await RawClient.open(service.port);
  await idle.get('/').response();
  await service.line('holding a');
  await second.received(1);
  await service.stop();

  service.release('a');
  t.equal((await first.response()).status, 200);
  const status = await service.statusWhen(({ in_flight }) => in_flight.count === 1);
  t.equal(status.state, 'stopping', 'one is left, and the service with it');
  t.match(status.in_flight.oldest, [{ method: 'GET', path: '/stream/b' }]);
  t.equal((await service.operator('/livez')).status, 200, 'a drain is not a death');
  t.equal((await service.operator('/readyz')).status, 503);

  service.release('b');
  t.equal((await second.response()).body, 'first\nlast\n');
  t.equal(await idle.ended, 'fin');
  t.strictSame(await service.exited, { code: 0, signal: null });
});
