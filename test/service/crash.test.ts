import t from 'tap';
import { assertRefused } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

for (const [origin, path] of [
  ['uncaughtException', '/crash'],
  ['unhandledRejection', '/crash/rejection'],
] as const) {
  t.test(
    `after an ${origin} what is in flight completes, then the service leaves with exit 70`,
    async (t) => {
      const service = await ServiceProcess.running(t);
      const held = (await RawClient.open(service.port)).get('/hold/a');
      await service.line('holding a');
      const guilty = (await RawClient.open(service.port)).get(path);
      await service.line(`FATAL: Crash (${origin}): crashed on purpose`);
      await service.line('Service state: STOPPING');
      t.equal((await guilty.response()).status, 200, 'the one that crashed it has its answer too');

      const late = (await RawClient.open(service.port)).get('/');
      assertRefused(t, await late.response());
      service.release('a');
      t.equal((await held.response()).status, 200);
      t.strictSame(await service.exited, { code: 70, signal: null });
      t.notMatch(service.output, 'gracefully');
      t.match(service.report(), { reason: 'crash', exit_code: 70 });
    },
  );
}

t.test('a crash ends a lame duck, and is what the process ends with', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_DELAY: '3600' } });
  service.signal('SIGTERM');
  await service.line('Lame duck');
  t.equal((await (await RawClient.open(service.port)).get('/crash').response()).status, 200);
  t.strictSame(await service.exited, { code: 70, signal: null });
  t.match(service.report(), { reason: 'SIGTERM', exit_code: 70 });
});

t.test('so is a crash while the service drains', async (t) => {
  const service = await ServiceProcess.running(t);
  const guilty = (await RawClient.open(service.port)).get('/hold-then-crash/a');
  const held = (await RawClient.open(service.port)).get('/hold/b');
  await service.line('holding a');
  await service.line('holding b');
  await service.stop();
  service.release('a');
  await service.line('FATAL: Crash (uncaughtException): crashed on purpose');
  service.release('b');
  t.equal((await guilty.response()).status, 200);
  t.equal((await held.response()).status, 200);
  t.strictSame(await service.exited, { code: 70, signal: null });
  t.notMatch(service.output, 'gracefully');
});
