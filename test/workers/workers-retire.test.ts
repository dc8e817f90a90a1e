import t from 'tap';
import { WorkersService } from '../support/workers-service.ts';

t.test(
  'a request that never ends keeps a retired worker for a bounded time, and is named when it is cut',
  async (t) => {
    const pool = await WorkersService.running(t, {
      workers: 1,
      env: { KEEP_ALIVE_TIMEOUT: '0.1', SHUTDOWN_TIMEOUT: '1' },
    });
    const { service } = pool;
    const [old] = await pool.pids(1);
    const hanging = (await pool.connect()).get('/hang');
    await service.line('hanging');
    await pool.reload();
    t.match(
      (await service.statusWhen(() => true)).workers?.find(({ pid }) => pid === old),
      { state: 'retiring', in_flight: 1 },
    );
    await service.line('WARNING: Cut in-flight request: GET /hang after');
    t.not(await hanging.ended, undefined);
    t.notOk((await pool.pids(1)).includes(old ?? 0));
    t.equal(pool.audit().filter(({ outcome }) => outcome === 'cut').length, 1, 'on record once');
    t.equal((await pool.get()).status, 200);
  },
);

t.test('a retired worker whose event loop is blocked is killed when its time is over', async (t) => {
  const pool = await WorkersService.running(t, {
    workers: 1,
    env: { KEEP_ALIVE_TIMEOUT: '0.1', SHUTDOWN_TIMEOUT: '1', HEARTBEAT_TIMEOUT: '3600' },
  });
  const { service } = pool;
  const [old] = await pool.pids(1);
  const blocking = (await pool.connect()).get('/block/3600000');
  await service.line('blocking');
  await pool.reload();
  await service.line(`ERROR: Worker ${old} did not answer: its event loop was blocked. Killed`);
  await service.line('Cut in-flight request: GET /block/3600000 after');
  t.not(await blocking.ended, undefined);
  t.notOk((await pool.pids(1)).includes(old ?? 0));
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(
    pool.audit().filter(({ type }) => type === 'cut'),
    [{ pid: old, path: '/block/3600000' }],
  );
});
