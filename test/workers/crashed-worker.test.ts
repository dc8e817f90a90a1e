import t from 'tap';
import { WorkersService } from '../support/workers-service.ts';

t.test('a worker whose application crashes completes what it has, and is replaced', async (t) => {
  const pool = await WorkersService.running(t, { workers: 1, env: { SHUTDOWN_TIMEOUT: '5' } });
  const { service } = pool;
  const [crashed = 0] = await pool.pids(1);
  const held = (await pool.connect()).get('/hold/a');
  await service.line('holding a');
  const crashing = (await pool.connect()).get('/crash');
  await service.line('FATAL: Crash (uncaughtException): crashed on purpose');
  await service.line(`ERROR: Worker ${crashed} stops by itself and is replaced`);
  pool.open('a');
  t.match(
    await held.response(),
    { status: 200, headers: { connection: 'close' } },
    'what it had is completed',
  );
  await service.line('Cut in-flight request: GET /crash after');
  t.not(await crashing.ended, undefined);
  t.notOk((await pool.pids(1)).includes(crashed), 'then it leaves');
  t.equal((await pool.get()).status, 200, 'its successor serves');
  t.equal(
    service.lines.filter((line) => line.includes('Service state: ')).length,
    2,
    'the service as a whole goes on',
  );

  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
});
