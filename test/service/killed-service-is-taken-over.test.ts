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

t.test('a process that is killed meanwhile leaves no report, and stop says so', async (t) => {
  const dir = tempDir(t);
  const env = { PID_FILE: join(dir, 'service.pid') };
  const service = await ServiceProcess.running(t, { env });
  (await RawClient.open(service.port)).get('/hang');
  const stopping = command(t, service, ['stop'], env);
  await service.line('STOPPING');
  service.signal('SIGKILL');
  t.strictSame(await stopping.exited, { code: 1, signal: null });
  t.equal(stopping.lines.at(-1), `Process ${service.pid} is gone, but left no report in ${service.stateDir}`);
  t.ok(existsSync(env.PID_FILE), 'and the PID file it could not take away');

  // The next start finds the file of a dead process, and takes it over.
  const next = await ServiceProcess.running(t, { env });
  t.ok(
    next.lines.includes(
      `WARNING: PID file ${env.PID_FILE} was left by process ${service.pid}, which is dead`,
    ),
  );
  t.equal(readFileSync(env.PID_FILE, 'utf8'), `${next.pid}\n`);
});
