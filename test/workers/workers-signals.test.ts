import t from 'tap';
import { count, WorkersService } from '../support/workers-service.ts';

t.test('a signal that reaches the workers too changes nothing: the supervisor decides for all', async (t) => {
  const pool = await WorkersService.running(t);
  const { service } = pool;
  const pids = await pool.pids();
  for (const pid of pids) for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.kill(pid, signal);
  for (let round = 0; round < 4; round += 1) t.equal((await pool.get()).status, 200);
  t.strictSame((await pool.pids()).sort(), pids.sort());
  t.equal(count(service.lines, 'Received signal'), 0);
});

t.test('a second SIGTERM changes nothing, a second SIGINT cuts what is in flight', async (t) => {
  const pool = await WorkersService.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const { service } = pool;
  const held = (await pool.connect()).get('/hold/a');
  await service.line('holding a');
  await service.stop('SIGTERM');
  service.signal('SIGTERM');
  service.signal('SIGINT');
  t.equal((await service.statusWhen(() => true)).in_flight.count, 1);
  service.signal('SIGINT');
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.not(await held.ended, undefined);
  t.equal(count(service.lines, 'Received signal'), 1);
  t.match(service.output, 'WARNING: Shutdown forced: 1 request still in flight');
  t.match(service.output, /Cut in-flight request: GET \/hold\/a after .*, because the stop was forced\n/);
  t.match(service.output, 'ERROR: Force shutdown: In-flight requests did not complete in time');
  t.match(service.report(), {
    reason: 'SIGTERM',
    exit_code: 1,
    cut: [{ path: '/hold/a', reason: 'the stop was forced' }],
  });
  t.ok(service.report().duration_seconds < 30);
});

t.test('SHUTDOWN_DELAY: health checks fail first, requests are served until the lock', async (t) => {
  const pool = await WorkersService.running(t, { env: { SHUTDOWN_DELAY: '2' } });
  const { service } = pool;
  const idle = await pool.connect();
  t.equal((await idle.get('/').response()).status, 200);
  service.signal('SIGTERM');
  await service.line('INFO: Lame duck for 2s: health checks fail, requests are still served');
  t.equal((await service.operator('/readyz')).status, 503);
  t.equal((await idle.get('/health').response()).status, 503);
  t.equal((await pool.get()).status, 200);
  t.notMatch(service.output, 'Service state: STOPPING');
  const held = (await pool.connect()).get('/hold/a');
  await service.line('holding a');
  await service.line('Service state: STOPPING - Rejecting new requests (fail-safe mode). 1 in-flight');
  t.equal((await pool.get()).status, 503);
  pool.open('a');
  t.equal((await held.response()).status, 200);
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.ok(service.report().duration_seconds >= 2);
});
