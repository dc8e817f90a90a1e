import t from 'tap';
import { count, WorkersService } from '../support/workers-service.ts';

t.test('at the deadline what hangs in a worker is cut and named', async (t) => {
  const pool = await WorkersService.running(t, { env: { SHUTDOWN_TIMEOUT: '1' } });
  const { service } = pool;
  const clients = [];
  for (let index = 0; index < 2; index += 1) clients.push((await pool.connect()).get('/hang?token=secret'));
  await service.until(() => (count(service.lines, 'hanging') === 2 ? true : undefined), 'two hang');

  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(service.lines.slice(service.lines.findIndex((line) => line.includes('Received signal'))), [
    'INFO: Received signal 15. Initiating graceful shutdown (fail-safe)...',
    'WARNING: Service state: STOPPING - Rejecting new requests (fail-safe mode). 2 in-flight requests remaining.',
    'INFO: Waiting up to 1s for 2 in-flight requests to complete...',
    'WARNING: Shutdown timeout: 2 requests still in-flight after 1s',
    /^WARNING: Cut in-flight request: GET \/hang after \d+(\.\d)?s \(working\), because the time is over$/,
    /^WARNING: Cut in-flight request: GET \/hang after \d+(\.\d)?s \(working\), because the time is over$/,
    'ERROR: Force shutdown: In-flight requests did not complete in time',
    'INFO: Service shutdown complete',
  ]);
  t.notMatch(service.output, 'secret', 'the query is not in the log');
  t.match(service.report(), {
    in_flight_at_lock: 2,
    completed: 0,
    exit_code: 1,
    cut: [{ path: '/hang' }, { path: '/hang' }],
  });
  const cut = pool.audit().filter(({ outcome }) => outcome === 'cut');
  t.equal(cut.length, 2, 'each is on record once');
});

for (const workers of [1, 2]) {
  t.test(`a blocked event loop among ${workers} workers does not hold the deadline`, async (t) => {
    const pool = await WorkersService.running(t, {
      workers,
      env: { SHUTDOWN_TIMEOUT: '2', HEARTBEAT_TIMEOUT: '3600' },
    });
    const { service } = pool;
    await pool.pids(workers);
    const blocking = (await pool.connect()).get('/block/3600000');
    await service.line('blocking');

    service.signal('SIGTERM');
    t.strictSame(await service.exited, { code: 1, signal: null });
    t.not(await blocking.ended, undefined);
    t.match(service.output, 'WARNING: Shutdown timeout: 1 requests still in-flight after 2s');
    t.match(
      service.output,
      /^WARNING: Cut in-flight request: GET \/block\/3600000 after \d+(\.\d)?s \(working\), because the time is over$/m,
    );
    t.match(service.output, /ERROR: Worker \d+ did not answer: its event loop was blocked. Killed/);
    t.match(service.output, 'ERROR: Force shutdown: In-flight requests did not complete in time');
    t.notMatch(service.output, 'All requests completed gracefully');
    const report = service.report();
    t.match(report, { exit_code: 1, cut: [{ method: 'GET', path: '/block/3600000' }] });
    t.ok(report.duration_seconds >= 2 && report.duration_seconds < 12, `${report.duration_seconds} s`);
    t.match(
      pool.audit().filter(({ type }) => type === 'cut'),
      [{ method: 'GET', path: '/block/3600000' }],
      'the audit log names it too',
    );
  });
}

t.test('a worker that is killed during the drain has not completed what it had', async (t) => {
  const pool = await WorkersService.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const { service } = pool;
  const held = (await pool.connect()).get('/hold/a');
  await service.line('holding a');
  const { workers } = await service.statusWhen(({ in_flight }) => in_flight.count === 1);
  const holder = workers?.find(({ in_flight }) => in_flight === 1)?.pid ?? 0;
  await service.stop();
  process.kill(holder, 'SIGKILL');
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.not(await held.ended, undefined);
  t.match(service.report(), { completed: 0, cut: [{ path: '/hold/a' }], exit_code: 1 });
  t.match(
    pool.audit().filter(({ type }) => type === 'cut'),
    [{ path: '/hold/a', pid: holder }],
  );
});

t.test('a worker that blocks its event loop when all is answered does not hold the stop', async (t) => {
  // The last word before the end of the drain is the moment at which nothing is in flight any more.
  const app = `process.on('message', ({ name }) => { if (name === 'closeQueue') for (;;); });
    export default { routes(router) { router.get('/', (_request, response) => response.end('works')); } };`;
  const pool = await WorkersService.running(t, { workers: 1, app, env: { SHUTDOWN_TIMEOUT: '1' } });
  const { service } = pool;
  t.equal((await pool.get()).status, 200);
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(service.output, /ERROR: Worker \d+ did not leave and was killed/);
  t.ok(service.report().duration_seconds < 12);
});
