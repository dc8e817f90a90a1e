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
