import t from 'tap';
import { assertRefused } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('connections that are idle, silent or half-sent delay nothing', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const open = (count: number): Promise<RawClient[]> =>
    Promise.all(Array.from({ length: count }, () => RawClient.open(service.port)));
  const silent = await open(50);
  const halfSent = await open(20);
  for (const client of halfSent) client.write('POST / HTTP/1.1\r\nHost: te');
  const idle = await open(200);
  const answers = await Promise.all(idle.map((client) => client.get('/').response()));
  t.ok(answers.every(({ status }) => status === 200));
  await service.statusWhen(({ connections }) => connections.open === 270);

  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.notMatch(service.output, 'Waiting up to', 'nothing was in flight, so nothing was waited for');
  for (const client of [...silent, ...idle]) {
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '');
  }
  for (const client of halfSent) {
    assertRefused(t, await client.response());
    t.equal(await client.ended, 'fin');
  }
});

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
