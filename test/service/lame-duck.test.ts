import { join } from 'node:path';
import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess, TEST_APP } from '../support/service-process.ts';

t.test('for SHUTDOWN_DELAY health checks fail while requests are served; then the lock', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_DELAY: '2' } });
  const drain = await holdDrain(service);
  const idle = await RawClient.open(service.port);
  const healthy = await idle.get('/health').response();
  t.match([healthy.status, JSON.parse(healthy.body)], [200, { status: 'healthy', accepting_requests: true }]);
  t.equal((await service.operator('/readyz')).status, 200);

  const sinceMs = performance.now();
  service.signal('SIGTERM');
  await service.line('Lame duck for 2s');
  const health = await idle.get('/health').response();
  t.equal(health.status, 503);
  t.match(JSON.parse(health.body), { service_state: 'running', accepting_requests: true });
  t.equal((await service.operator('/readyz')).status, 503);
  t.equal((await service.operator('/livez')).status, 200);
  const served = await idle.get('/').response();
  t.equal(served.status, 200);
  t.not(served.headers.connection, 'close');
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200, 'a new one too');
  service.signal('SIGTERM');

  await service.line('Service state: STOPPING');
  t.ok(performance.now() - sinceMs >= 2_000, 'a second signal does not shorten it');
  assertRefused(t, await idle.get('/').response());
  await drain.finish(t);
});

t.test('a second SIGINT ends the lame duck, and what is in flight with it', async (t) => {
  const service = await ServiceProcess.running(t, {
    env: { SHUTDOWN_DELAY: '3600', SHUTDOWN_TIMEOUT: '60' },
  });
  const client = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  service.signal('SIGINT');
  await service.line('Lame duck');
  service.signal('SIGINT');
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(service.output, 'WARNING: Cut in-flight request: GET /hold/a');
  client.destroy();
});

t.test('without anything in flight a second SIGINT ends the lame duck with exit 0', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_DELAY: '3600' } });
  service.signal('SIGINT');
  await service.line('Lame duck');
  service.signal('SIGINT');
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test('a service that does not run yet needs no lame duck', async (t) => {
  const app = join(TEST_APP, '../app-slow-start.mjs');
  const service = ServiceProcess.spawn(t, { args: [app], env: { SHUTDOWN_DELAY: '3600' } });
  await service.line('start() waits');
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
});
