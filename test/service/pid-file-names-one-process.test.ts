import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { readPidFile, removePidFile, removePidFileNow, writePidFile } from '../../src/platform/pid-file.ts';
import { fateOf, identityOf, parseIdentity } from '../../src/platform/process-identity.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

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

t.test('stop touches no process but the service, and no PID file of a process that may be it', async (t) => {
  const stateDir = tempDir(t);
  const file = join(stateDir, 'service.pid');
  const alive = sleeper(t);
  const dead = sleeper(t);
  await dead.end();
  const said = async (content: string): Promise<[number | null, string]> => {
    writeFileSync(file, content);
    const env = { PID_FILE: file, OPS_PORT: 'off' };
    const child = ServiceProcess.spawn(t, { args: ['stop'], stateDir, env });
    const { code } = await child.exited;
    return [code, child.output];
  };
  const note = (changes: object): void =>
    writeFileSync(join(stateDir, 'running.json'), JSON.stringify({ ...identityOf(alive.pid), ...changes }));

  t.strictSame(await said(`${dead.pid}\n`), [
    0,
    `Nothing to stop: ${file} was left by process ${dead.pid}, which is dead (removed)`,
  ]);
  t.notOk(existsSync(file));
  t.strictSame(await said('not a pid'), [
    0,
    `Nothing to stop: ${file} holds no process id, but "not a pid" (removed)`,
  ]);

  for (const changes of [{ start_ticks: 1 }, { boot_id: '00000000-0000-0000-0000-000000000000' }]) {
    note(changes);
    t.strictSame(await said(`${alive.pid}\n`), [
      0,
      `Nothing to stop: ${file} was left behind: process ${alive.pid} is something else now, and was not touched (removed)`,
    ]);
    t.notOk(existsSync(file));
  }

  // As an earlier version noted it, or without /proc.
  note({ start_ticks: undefined, boot_id: undefined, started_at: new Date().toISOString() });
  t.strictSame(await said(`${alive.pid}\n`), [
    1,
    `Not stopped: process ${alive.pid} is alive, and nothing in ${stateDir} or at the ops server tells whether it is the service`,
  ]);
  t.equal(readFileSync(file, 'utf8'), `${alive.pid}\n`, 'the file stays');
  t.doesNotThrow(() => process.kill(alive.pid, 0), 'the other process lives');
});

t.test('a process is known by its start ticks and the boot id', async (t) => {
  const alive = sleeper(t);
  const identity = identityOf(alive.pid);
  t.match(identity, { pid: alive.pid, start_ticks: Number, boot_id: /^[0-9a-f-]{36}$/ });
  t.strictSame(parseIdentity(JSON.parse(JSON.stringify({ ...identity, more: 1 }))), identity);
  t.equal(fateOf(identity), 'alive');
  t.equal(fateOf({ ...identity, start_ticks: (identity.start_ticks ?? 0) + 1 }), 'recycled');
  t.equal(fateOf({ ...identity, boot_id: 'another' }), 'recycled');
  t.equal(fateOf({ pid: alive.pid }), 'unknown');
  t.equal(fateOf({ pid: alive.pid, boot_id: identity.boot_id ?? '' }), 'unknown');
  await alive.end();
  t.equal(fateOf(identity), 'dead');
  t.equal(fateOf({ pid: alive.pid }), 'dead');
  for (const value of [null, 1, {}, { pid: '1' }, { pid: 0 }, { pid: -5 }, { pid: 1.5 }])
    t.equal(parseIdentity(value), undefined);
});

t.test('a PID file holds one process id', async (t) => {
  const file = join(tempDir(t), 'service.pid');
  t.strictSame(readPidFile(file), { kind: 'none' });
  writeFileSync(file, '4711');
  t.strictSame(readPidFile(file), { kind: 'pid', pid: 4711 });
  for (const content of ['', 'x', '-1', '0', '1 2', '12a', `${'9'.repeat(60)}x`]) {
    writeFileSync(file, content);
    t.strictSame(readPidFile(file), { kind: 'unreadable', content: content.slice(0, 40) }, content);
  }
  t.throws(() => readPidFile(join(file, '..')), { code: 'EISDIR' });

  for (const remove of [removePidFile, removePidFileNow]) {
    writePidFile(file);
    t.strictSame(readPidFile(file), { kind: 'pid', pid: process.pid });
    await remove(file);
    t.notOk(existsSync(file));
    writeFileSync(file, '1\n');
    await remove(file);
    t.ok(existsSync(file), "another process's file is not removed");
    await remove(join(file, 'below'));
  }
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
