import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';
import { ConfigError } from '../../src/config/settings.ts';
import { holderOf, lockStateDir } from '../../src/platform/state-lock.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const LOCK = join(ROOT, '.tests/modules/src/platform/state-lock.js');

for (const WORKERS of ['0', '1']) {
  t.test(`a second start with WORKERS=${WORKERS} exits 78 and names the first`, async (t) => {
    const first = await ServiceProcess.running(t, { env: { WORKERS } });
    const { stateDir } = first;
    const refused = async (): Promise<void> => {
      const second = ServiceProcess.spawn(t, { stateDir, env: { WORKERS } });
      t.strictSame(await second.exited, { code: 78, signal: null });
      t.strictSame(
        second.lines.filter((line) => !line.startsWith('INFO: ')),
        [
          `FATAL: STATE_DIR: "${stateDir}" is in use by process ${first.pid} on ${hostname()}, which is alive`,
        ],
      );
    };
    await refused();
    const reload = ServiceProcess.spawn(t, { args: ['reload'], stateDir });
    t.match(await reload.exited, { code: 0 });
    await refused();
    const stop = ServiceProcess.spawn(t, { args: ['stop'], stateDir });
    t.match(await stop.exited, { code: 0 }, stop.output);
    t.strictSame(await first.exited, { code: 0, signal: null });
    t.strictSame(await holderOf(stateDir), { kind: 'none' });
  });
}

t.test('SIGKILL frees the directory at once', async (t) => {
  const stateDir = tempDir(t);
  for (let round = 0; round < 3; round += 1) {
    const service = await ServiceProcess.running(t, { stateDir });
    t.match(await holderOf(stateDir), { kind: 'known', process: { pid: service.pid }, host: hostname() });
    service.signal('SIGKILL');
    await service.exited;
  }
  t.equal(readdirSync(join(stateDir, 'lock')).length, 1, 'dead locks do not pile up');
});

t.test('a stopped process holds it, too', async (t) => {
  const service = await ServiceProcess.running(t);
  service.signal('SIGSTOP');
  t.strictSame(await holderOf(service.stateDir), { kind: 'silent' });
  const second = ServiceProcess.spawn(t, { stateDir: service.stateDir });
  t.strictSame(await second.exited, { code: 78, signal: null });
  t.match(second.lines.at(-1), /is in use by a process that is alive and does not answer$/);
});

t.test('of many that lock at once one wins, over a dead lock and in a long path', async (t) => {
  const dir = join(tempDir(t), 'x'.repeat(120));
  mkdirSync(dir);
  await (await lockStateDir(dir))();
  const program = `
    import { lockStateDir } from ${JSON.stringify(LOCK)};
    process.stdin.once('data', () => lockStateDir(${JSON.stringify(dir)}).then(() => console.log('won'), (error) => console.log(error.name)));
    console.log('ready');
    setInterval(() => undefined, 1e6);`;
  const lines: string[] = [];
  const children = Array.from({ length: 6 }, () =>
    spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['pipe', 'pipe', 'inherit'],
    }),
  );
  t.teardown(async () => {
    await Promise.all(
      children.map((child) => {
        const exited = once(child, 'exit');
        child.kill('SIGKILL');
        return exited;
      }),
    );
  });
  const outputs = children.map(({ stdout }) => createInterface({ input: stdout })[Symbol.asyncIterator]());
  for (const output of outputs) t.equal((await output.next()).value, 'ready');
  for (const { stdin } of children) stdin.write('go\n');
  for (const output of outputs) lines.push((await output.next()).value);
  t.strictSame(lines.sort(), [...Array(5).fill('ConfigError'), 'won']);
});

t.test('a lock is given back once, and another process of the same number may take it', async (t) => {
  const dir = tempDir(t);
  const release = await lockStateDir(dir);
  await t.rejects(lockStateDir(dir), ConfigError);
  await Promise.all([release(), release()]);
  await (await lockStateDir(dir))();
});

t.test('a directory that cannot be made is named, and holds nobody up', async (t) => {
  const service = ServiceProcess.spawn(t, { env: { STATE_DIR: '/proc/x' } });
  t.strictSame(await service.exited, { code: 78, signal: null });
  t.match(
    service.lines.at(-1),
    /^FATAL: STATE_DIR: want a directory that can be written, got "\/proc\/x": ENOENT/,
  );
});
