import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { readPidFile, removePidFile, writePidFile } from '../../src/platform/pid-file.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

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
    const child = ServiceProcess.spawn(t, { args: ['stop'], env: { PID_FILE: file } });
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
  const stopping = ServiceProcess.spawn(t, { args: ['stop'], env: { PID_FILE: dir } });
  t.strictSame(await stopping.exited, { code: 78, signal: null });
  t.strictSame(stopping.lines.length, 1);
  t.match(stopping.output, `master-agent: PID_FILE: want a file that can be read, got "${dir}": EISDIR`);
  t.strictSame(await service.exited, { code: 78, signal: null });
  t.match(
    service.lines.at(-1),
    new RegExp(`^FATAL: PID_FILE: want a file that can be written, got "${file}": ENOENT`),
  );
});
