import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

/** Runs a command beside the service, with its settings. */
function command(
  t: Test,
  service: { stateDir: string },
  args: string[],
  env: Record<string, string>,
): ServiceProcess {
  return ServiceProcess.spawn(t, { args, stateDir: service.stateDir, env });
}

t.test('stop shows the drain and ends as the service does: 0 when everything was completed', async (t) => {
  const dir = tempDir(t);
  const env = { PID_FILE: join(dir, 'service.pid') };
  const service = await ServiceProcess.running(t, { env });
  t.equal(readFileSync(env.PID_FILE, 'utf8'), `${service.pid}\n`);
  const busy = (await RawClient.open(service.port)).get('/hold/a?secret=1');
  await service.line('holding a');

  // A second one does not take the first one's place.
  const second = ServiceProcess.spawn(t, { env });
  t.strictSame(await second.exited, { code: 78, signal: null });
  t.strictSame(
    second.lines.filter((line) => !line.startsWith('INFO: ')),
    [
      `FATAL: PID_FILE: ${env.PID_FILE} names process ${service.pid}, which is alive ` +
        'and may be a service; remove the file if it is none',
    ],
  );
  t.ok(existsSync(env.PID_FILE), 'nor its file');

  const stopping = command(t, service, ['stop'], env);
  t.match(
    await stopping.line('Draining'),
    /^Draining: 1 in flight, \d+ s left; oldest GET \/hold\/a, \d+\.\d s$/,
  );
  t.equal(stopping.lines[0], `Stopping process ${service.pid}`);
  service.release('a');
  t.equal((await busy.response()).status, 200);
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.strictSame(await stopping.exited, { code: 0, signal: null });
  t.match(
    stopping.lines.at(-1),
    /^Stopped in [\d.]+ s, exit 0: 1 in flight completed, 0 cut, 0 refused with 503$/,
  );
  t.notOk(existsSync(env.PID_FILE), 'the service takes its PID file away');

  const again = command(t, service, ['stop'], env);
  t.strictSame(await again.exited, { code: 0, signal: null });
  t.strictSame(again.lines, [`Nothing to stop: there is no PID file ${env.PID_FILE}`]);
});

t.test('stop ends with 1 and names what was cut, as the service does', async (t) => {
  const dir = tempDir(t);
  const env = { PID_FILE: join(dir, 'service.pid'), SHUTDOWN_TIMEOUT: '0.3' };
  const service = await ServiceProcess.running(t, { env });
  const busy = (await RawClient.open(service.port)).get('/hang');
  const other = await RawClient.open(service.port);
  t.equal((await other.get('/').response()).status, 200);
  const stopping = command(t, service, ['stop'], env);
  t.strictSame(await stopping.exited, { code: 1, signal: null });
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(
    stopping.output,
    /^Stopped in [\d.]+ s, exit 1: 0 in flight completed, 1 cut, 0 refused with 503$/m,
  );
  t.match(stopping.lines.at(-1), /^ {2}cut: GET \/hang after \d+\.\d s$/);
  await busy.ended;
});
