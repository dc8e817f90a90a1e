import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { createLogger, flushLog } from '../../src/platform/logger.ts';
import { RawClient } from '../support/raw-client.ts';
import { MAIN, POLL_MS, ServiceProcess, TEST_APP, tempDir } from '../support/service-process.ts';

function mkfifo(t: Test): string {
  const path = join(tempDir(t), 'fifo');
  t.equal(spawnSync('mkfifo', [path]).status, 0);
  return path;
}

/** A pipe that nobody reads before `read` is called. */
function unread(t: Test): { fd: number; read: () => string } {
  const path = mkfifo(t);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const fd = openSync(path, 'w');
  t.teardown(() => {
    closeSync(reader);
    closeSync(fd);
  });
  const buffer = Buffer.alloc(1024 * 1024);
  const read = (): string => {
    try {
      return buffer.toString('utf8', 0, readSync(reader, buffer));
    } catch {
      return '';
    }
  };
  return { fd, read };
}

t.test('a line is in the pipe when the call returns', async (t) => {
  const { fd, read } = unread(t);
  const log = createLogger({ level: 'info', format: 'text', fd });
  log.info('one');
  log.warn('two');
  t.equal(read(), 'INFO: one\nWARNING: two\n');
});

t.test(
  'nobody reads: nothing blocks, the oldest are dropped and counted, and the reader who is back is told',
  async (t) => {
    const { fd, read } = unread(t);
    const log = createLogger({ level: 'info', format: 'text', fd });
    const COUNT = 40_000;
    for (let index = 0; index < COUNT; index += 1) log.info(`${index} ${'x'.repeat(90)}`);
    let text = '';
    while (!flushLog(0)) text += read();
    text += read();
    const lines = text.trimEnd().split('\n');
    const notice = lines.findIndex((line) => line.startsWith('WARNING: '));
    const dropped = Number(/^WARNING: (\d+) log lines? dropped$/.exec(lines[notice] ?? '')?.[1]);
    const numbers = lines
      .filter((line) => line.startsWith('INFO: '))
      .map((line) => Number(line.split(' ')[1]));
    t.ok(dropped > 0);
    t.equal(numbers.length + dropped, COUNT, 'what is not there is counted');
    t.equal(numbers.at(-1), COUNT - 1, 'the last line is there');
    t.equal(
      numbers[notice],
      (numbers[notice - 1] ?? 0) + dropped + 1,
      'the notice stands where they are missing',
    );
    t.strictSame(
      numbers,
      numbers.toSorted((one, other) => one - other),
    );
  },
);

t.test('flushLog waits no longer than it may', async (t) => {
  const { fd, read } = unread(t);
  const log = createLogger({ level: 'info', format: 'text', fd });
  for (let index = 0; index < 2_000; index += 1) log.info('x'.repeat(90));
  t.equal(flushLog(20), false);
  while (!flushLog(0)) read();
});

for (const kind of ['pipe', 'socket'] as const) {
  for (const WORKERS of ['0', '1']) {
    t.test(`a ${kind} that nobody reads stops neither probe nor stop, with WORKERS=${WORKERS}`, async (t) => {
      const stateDir = tempDir(t);
      const service = spawn(process.execPath, [MAIN, TEST_APP], {
        env: {
          ...process.env,
          ...{ HOST: '127.0.0.1', PORT: '0', OPS_PORT: '0', STATE_DIR: stateDir, WORKERS },
          ...{ ADMIN_TOKEN: 'the-token-of-the-administrator', SHUTDOWN_TIMEOUT: '2' },
        },
        // What spawn makes for 'pipe' is a socket pair; a shell makes a pipe.
        stdio: ['ignore', kind === 'socket' ? 'pipe' : openFifo(t), 'ignore'],
      });
      end(t, service);
      const exited = once(service, 'exit');
      const ops = await opsServer(stateDir);
      // Each is a line in the log; all together are more than a pipe or a socket takes.
      const client = await RawClient.open(Number(new URL(ops).port));
      for (let count = 0; count < 1_500; count += 1) {
        client.request('POST', '/admin/emergency-shutdown', { 'Content-Length': '0' });
        const { status } = await client.response();
        if (status !== 401) t.fail(`${status}`);
      }
      client.destroy();
      t.equal((await fetch(`${ops}/livez`)).status, 200);
      service.kill('SIGTERM');
      t.strictSame(await exited, [0, null]);
      t.match(JSON.parse(readFileSync(join(stateDir, 'last-shutdown.json'), 'utf8')), { exit_code: 0 });
    });
  }
}

function openFifo(t: Test): number {
  const path = mkfifo(t);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const fd = openSync(path, 'w');
  t.teardown(() => {
    closeSync(reader);
    closeSync(fd);
  });
  return fd;
}

function end(t: Test, child: ChildProcess): void {
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    }
  });
}

/** The address that the service notes, as soon as it is ready there. */
async function opsServer(stateDir: string): Promise<string> {
  for (;;) {
    try {
      const { operator_door } = JSON.parse(readFileSync(join(stateDir, 'running.json'), 'utf8'));
      if (operator_door !== undefined && (await fetch(`${operator_door}/readyz`)).ok) return operator_door;
    } catch {
      // It is not there yet.
    }
    await delay(POLL_MS);
  }
}

t.test(
  'a thread that waits for ever in the pool does not hold the end, nor change the exit code',
  async (t) => {
    const fifo = mkfifo(t);
    const app = join(tempDir(t), 'app.mjs');
    // Opening a pipe that nobody writes to is what a hung disk is: a system call that does not return.
    writeFileSync(
      app,
      `import { open } from 'node:fs/promises';
     export default { start() { for (let i = 0; i < 2; i += 1) void open(${JSON.stringify(fifo)}, 'r'); } };`,
    );
    const service = await ServiceProcess.running(t, { args: [app] });
    await service.stop();
    t.strictSame(await service.exited, { code: 0, signal: null });
    t.equal(service.lines.at(-1), 'INFO: Service shutdown complete');
  },
);
