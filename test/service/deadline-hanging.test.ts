import { join } from 'node:path';
import t from 'tap';
import { readRecords } from '../support/audit.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('at the deadline what hangs is cut, named in the log, and the exit code says so', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '1' } });
  const hanging = (await RawClient.open(service.port)).get('/hang?token=secret');
  await service.statusWhen(({ in_flight }) => in_flight.count === 1);
  const listening = (await RawClient.open(service.port)).get('/signals');
  await listening.received(1);
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);

  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.not(await hanging.ended, undefined);
  t.equal(hanging.pending, '', 'no answer that might be taken for one');

  const log = service.lines.slice(service.lines.findIndex((line) => line.includes('Received signal')));
  const cut = (path: string): RegExp =>
    new RegExp(
      String.raw`^WARNING: Cut in-flight request: GET ${path} after \d+(\.\d)?s \(working\), because the time is over$`,
    );
  // The handlers learn of the lock in the same turn, so before the line that tells of it.
  t.match(log, [
    'INFO: Received signal 15. Initiating graceful shutdown (fail-safe)...',
    'INFO: stopping: the service is stopping',
    'WARNING: Service state: STOPPING - Rejecting new requests (fail-safe mode). 2 in-flight requests remaining.',
    'INFO: Waiting up to 1s for 2 in-flight requests to complete...',
    // So do those that are cut.
    'INFO: signal: the request was cut: the service had to stop',
    'WARNING: Shutdown timeout: 2 requests still in-flight after 1s',
    cut('/hang'),
    cut('/signals'),
    'ERROR: Force shutdown: In-flight requests did not complete in time',
    'INFO: Service shutdown complete',
  ]);
  t.notMatch(service.output, 'secret', 'the query is not in the log');

  const { cut: named, ...report } = service.report();
  t.match(report, { reason: 'SIGTERM', in_flight_at_lock: 2, completed: 0, aborted: 0, exit_code: 1 });
  t.match(named, [
    { method: 'GET', path: '/hang' },
    { method: 'GET', path: '/signals' },
  ]);
  t.ok(named.every(({ age_ms }) => age_ms >= 1000 && age_ms < 60_000));
});

t.test('what completes before the deadline is not cut', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '1' } });
  const quick = (await RawClient.open(service.port)).get('/hold/a');
  const hanging = (await RawClient.open(service.port)).get('/hang');
  await service.line('holding a');
  await service.statusWhen(({ in_flight }) => in_flight.count === 2);

  await service.stop();
  service.release('a');
  t.equal((await quick.response()).status, 200);
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(service.output, 'WARNING: Shutdown timeout: 1 requests still in-flight after 1s');
  t.match(service.report(), { completed: 1, cut: [{ path: '/hang' }] });
  hanging.destroy();
});

t.test('a handler that gives up when it is cut was cut, and has not completed', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '1' } });
  const client = (await RawClient.open(service.port)).get('/until-cut');
  await service.line('waiting for the cut');
  await service.stop();
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.equal(client.pending, '');
  t.match(service.report(), { in_flight_at_lock: 1, completed: 0, cut: [{ path: '/until-cut' }] });
  t.match(readRecords(join(service.stateDir, 'audit.ndjson'), 'request'), [
    { path: '/until-cut', outcome: 'cut' },
  ]);
});
