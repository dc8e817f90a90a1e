import { join } from 'node:path';
import t from 'tap';
import { assertRefused } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess } from '../support/service-process.ts';

const APP = join(ROOT, 'test/fixtures/app-slow-stop.mjs');

t.test("a request on an idle connection gets the 503 while the application's stop() runs", async (t) => {
  const service = await ServiceProcess.running(t, { args: [APP] });
  const idle = await RawClient.open(service.port);
  const silent = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);
  await service.stop();
  await service.line('stopping the application');

  assertRefused(t, await idle.get('/').response());
  service.child.send({ release: 'stop' });
  t.equal(await silent.ended, 'fin', 'what is open ends after it');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.ok(
    service.lines.some((line) => line.includes('Refused 1 requests: stopping')),
    'told before the end',
  );
});

t.test('the classic stop ends open connections before the stop(): they would let in more', async (t) => {
  const service = await ServiceProcess.running(t, { args: [APP], env: { ENABLE_FAIL_SAFE: 'false' } });
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);
  await service.stop();

  t.equal(await idle.ended, 'fin');
  service.child.send({ release: 'stop' });
  t.strictSame(await service.exited, { code: 0, signal: null });
});
