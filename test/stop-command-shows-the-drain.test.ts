import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { readPidFile, removePidFile, writePidFile } from '../src/lifecycle/pid-file.ts';
import { RawClient } from './support/raw-client.ts';
import { ServiceProcess, tempDir } from './support/service-process.ts';

const HOUR_S = 3600;

/** A process that does nothing, and does not end by itself. */
function sleeper(t: Test): { pid: number; end: () => Promise<void> } {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => undefined, 1e6)'], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  const end = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  t.teardown(end);
  return { pid: child.pid as number, end };
}

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
    [`FATAL: PID_FILE: want no other service on ${env.PID_FILE}, got process ${service.pid}, which is alive`],
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

t.test('stop touches no process but the one that wrote the file', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'service.pid');
  const alive = sleeper(t);
  const dead = sleeper(t);
  await dead.end();
  const said = async (content: string | undefined, age = 0): Promise<[number | null, string]> => {
    if (content !== undefined) {
      writeFileSync(file, content);
      const written = Date.now() / 1000 - age;
      utimesSync(file, written, written);
    }
    const child = command(t, { stateDir: dir }, ['stop'], { PID_FILE: file });
    const { code } = await child.exited;
    return [code, child.output];
  };
  t.strictSame(await said(`${dead.pid}\n`), [
    0,
    `Nothing to stop: ${file} was left by process ${dead.pid}, which is dead (removed)`,
  ]);
  t.notOk(existsSync(file));
  t.strictSame(await said(`${alive.pid}\n`, HOUR_S), [
    0,
    `Nothing to stop: ${file} was left behind: process ${alive.pid} is something else now, and was not touched (removed)`,
  ]);
  t.notOk(existsSync(file));
  t.strictSame(await said('not a pid'), [
    0,
    `Nothing to stop: ${file} holds no process id, but "not a pid" (removed)`,
  ]);
  t.doesNotThrow(() => process.kill(alive.pid, 0), 'the other process lives');
});

t.test('whose process a PID file names is known from its content and its age', async (t) => {
  const file = join(tempDir(t), 'service.pid');
  t.strictSame(readPidFile(file), { kind: 'none' });
  const alive = sleeper(t);
  const dead = sleeper(t);
  await dead.end();
  const write = (content: string, age = 0): void => {
    writeFileSync(file, content);
    const written = Date.now() / 1000 - age;
    utimesSync(file, written, written);
  };
  write(`${alive.pid}\n`);
  t.strictSame(readPidFile(file), { kind: 'ours', pid: alive.pid });
  write(`${alive.pid}\n`, HOUR_S);
  t.strictSame(
    readPidFile(file),
    { kind: 'recycled', pid: alive.pid },
    'it began after the file was written',
  );
  write(`${dead.pid}`);
  t.strictSame(readPidFile(file), { kind: 'dead', pid: dead.pid });
  for (const content of ['', 'x', '-1', '0', '1 2', '12a', `${'9'.repeat(60)}x`]) {
    write(content);
    t.strictSame(readPidFile(file), { kind: 'unreadable', content: content.slice(0, 40) }, content);
  }
  t.throws(() => readPidFile(join(file, '..')), { code: 'EISDIR' });

  writePidFile(file);
  t.strictSame(readPidFile(file), { kind: 'ours', pid: process.pid });
  removePidFile(file);
  t.notOk(existsSync(file));
  write('1\n');
  removePidFile(file);
  t.ok(existsSync(file), "somebody else's is not taken away");
  removePidFile(join(file, 'below'));
});

t.test('a PID file that cannot be written, or read, is bad configuration', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'no/such/folder/service.pid');
  const service = ServiceProcess.spawn(t, { env: { PID_FILE: file } });
  const stopping = command(t, { stateDir: dir }, ['stop'], { PID_FILE: dir });
  t.strictSame(await stopping.exited, { code: 78, signal: null });
  t.strictSame(stopping.lines.length, 1);
  t.match(stopping.output, `master-agent: PID_FILE: want a file that can be read, got "${dir}": EISDIR`);
  t.strictSame(await service.exited, { code: 78, signal: null });
  t.match(
    service.lines.at(-1),
    new RegExp(`^FATAL: PID_FILE: want a file that can be written, got "${file}": ENOENT`),
  );
});
