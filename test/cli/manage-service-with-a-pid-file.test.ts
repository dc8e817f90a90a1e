import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { ROOT } from '../support/root.ts';
import { tempDir } from '../support/service-process.ts';

const APP = `
import { existsSync, watch } from 'node:fs';
export default {
  routes(router) {
    router.get('/hang', (_request, _response, { log }) => log.info('hanging'));
    router.get('/hold', (_request, response, { log }) => {
      const watcher = watch('.', () => {
        if (!existsSync('release')) return;
        watcher.close();
        response.end('held');
      });
      log.info('holding');
    });
  },
};`;

interface Result {
  readonly code: number | null;
  readonly output: string;
}

/** A checkout of its own: the script, what was built, and the dependencies. */
class Checkout {
  readonly dir: string;
  /** What the script is given beyond the environment of the test. */
  readonly env: Record<string, string> = {};

  constructor(t: Test, settings: Record<string, string> = {}) {
    this.dir = tempDir(t);
    mkdirSync(join(this.dir, 'deployment'));
    cpSync(join(ROOT, 'deployment/manage-service.sh'), join(this.dir, 'deployment/manage-service.sh'));
    cpSync(join(ROOT, 'dist'), join(this.dir, 'dist'), { recursive: true });
    cpSync(join(ROOT, 'package.json'), join(this.dir, 'package.json'));
    symlinkSync(join(ROOT, 'node_modules'), join(this.dir, 'node_modules'));
    writeFileSync(join(this.dir, 'app.mjs'), APP);
    this.settings(settings);
    t.teardown(() => this.kill());
  }

  settings(settings: Record<string, string>): void {
    const all = {
      HOST: '127.0.0.1',
      PORT: '0',
      OPS_PORT: '0',
      APP: 'app.mjs',
      LOG_FORMAT: 'text',
      ...settings,
    };
    const lines = Object.entries(all).map(([name, value]) => `${name}=${value}\n`);
    writeFileSync(join(this.dir, '.env'), lines.join(''));
  }

  spawn(...args: string[]): { child: ChildProcess; result: Promise<Result> } {
    const { PID_FILE: _, STATE_DIR: __, ...env } = process.env;
    const child = spawn(join(this.dir, 'deployment/manage-service.sh'), args, {
      env: { ...env, NODE: process.execPath, MANAGE_WITH: 'pid-file', ...this.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
    // By then all of it is read; a service in the background that held the output would hold the test.
    return { child, result: once(child, 'close').then(([code]) => ({ code, output })) };
  }

  run(...args: string[]): Promise<Result> {
    return this.spawn(...args).result;
  }

  get pid(): number {
    return Number(readFileSync(join(this.dir, 'var/master-agent.pid'), 'utf8'));
  }

  get log(): string {
    return readFileSync(join(this.dir, 'logs/app.log'), 'utf8');
  }

  get url(): string {
    return [...this.log.matchAll(/Accepting requests on (http:\S+)/g)].at(-1)?.[1] ?? '';
  }

  async logged(text: string): Promise<void> {
    while (!this.log.includes(text)) await delay(20);
  }

  kill(): void {
    try {
      process.kill(this.pid, 'SIGKILL');
    } catch {
      // It has ended, as it should.
    }
  }
}

t.test('start, status, reload, restart, stop', async (t) => {
  const checkout = new Checkout(t);
  t.match(await checkout.run('status'), { code: 3, output: /^Not running/ });
  t.match(await checkout.run('start'), { code: 0, output: /^Started: process \d+, log .*logs\/app\.log\n$/ });
  const { pid } = checkout;
  t.equal((await fetch(`${checkout.url}/health`)).status, 200, 'it serves when the command comes back');
  t.match(await checkout.run('start'), { code: 0, output: `Already running: process ${pid}` });
  const status = await checkout.run('status');
  t.match(status, { code: 0, output: `Running: process ${pid}` });
  t.match(status.output, /0 in flight/);
  t.match(status.output, 'Service state: RUNNING', 'with the last lines of the log');

  checkout.settings({ LOG_LEVEL: 'debug' });
  t.match(await checkout.run('reload'), { code: 0, output: /^Settings reloaded in \d+ ms; the code stays/ });
  checkout.settings({ LOG_LEVEL: 'loud' });
  t.match(await checkout.run('reload'), { code: 1, output: /Reload refused.*LOG_LEVEL: want/ });
  checkout.settings({});

  t.match(await checkout.run('restart'), {
    code: 0,
    output: /^Stopping process \d+\n[\s\S]*Started: process \d+/,
  });
  t.not(checkout.pid, pid);
  t.match(await checkout.run('logs', '-n', '1'), { code: 0, output: /^.*RUNNING.*\n$/ });
  t.match(await checkout.run('stop'), { code: 0, output: /exit 0/ });
  t.notOk(existsSync(join(checkout.dir, 'var/master-agent.pid')));
  t.match(await checkout.run('stop'), { code: 0, output: /^Nothing to stop/ });
  t.match(await checkout.run('reload'), { code: 1, output: /does not run/ });
});

t.test('stop shows the drain, and what is in flight is answered', async (t) => {
  const checkout = new Checkout(t);
  await checkout.run('start');
  const held = fetch(`${checkout.url}/hold`);
  await checkout.logged('holding');
  const { child, result } = checkout.spawn('stop');
  let shown = '';
  child.stdout?.on('data', (chunk) => (shown += chunk));
  while (!/Draining: 1 in flight, \d+ s left; oldest GET \/hold/.test(shown))
    await once(child.stdout ?? child, 'data');
  writeFileSync(join(checkout.dir, 'release'), '');
  t.equal(await (await held).text(), 'held');
  t.match(await result, { code: 0, output: /1 in flight completed, 0 cut/ });
});

t.test('stop ends with 1 when requests were cut', async (t) => {
  const checkout = new Checkout(t, { SHUTDOWN_TIMEOUT: '0.5' });
  await checkout.run('start');
  const cut = t.rejects(fetch(`${checkout.url}/hang`));
  await checkout.logged('hanging');
  t.match(await checkout.run('stop'), { code: 1, output: /1 cut[\s\S]*cut: GET \/hang/ });
  await cut;
});

t.test('a start that fails says why, and ends as the service did', async (t) => {
  const checkout = new Checkout(t, { PORT: 'http' });
  const { code, output } = await checkout.run('start');
  t.equal(code, 78);
  t.match(output, /did not start \(exit 78\)[\s\S]*PORT: want a port/);

  writeFileSync(
    join(checkout.dir, 'app.mjs'),
    'export default { start() { throw new Error("no database"); } };',
  );
  checkout.settings({});
  const failed = await checkout.run('start');
  t.equal(failed.code, 70);
  t.match(failed.output, 'no database');
  t.notMatch(failed.output, 'PORT: want', 'of this start alone');
});

t.test('a start that does not come to its end is told to stop', async (t) => {
  const checkout = new Checkout(t);
  writeFileSync(
    join(checkout.dir, 'app.mjs'),
    'export default { start: () => new Promise(() => setInterval(() => undefined, 1000)) };',
  );
  // Long enough for a slow machine to have a process that can be told anything.
  checkout.env.START_WAIT = '4';
  t.match(await checkout.run('start'), { code: 1, output: /not ready after 4 s/ });
  await checkout.logged('Received signal 15');
});

t.test('started without a line in the log, its own door tells that it serves', async (t) => {
  const checkout = new Checkout(t, { LOG_LEVEL: 'error' });
  t.match(await checkout.run('start'), { code: 0, output: /^Started/ });
  t.match(await checkout.run('stop'), { code: 0 });
});

t.test('after an emergency shutdown it stays down until it is unlatched', async (t) => {
  const token = 'correct-horse-battery-staple';
  const checkout = new Checkout(t, { ADMIN_TOKEN: token });
  await checkout.run('start');
  const headers = { Authorization: `Bearer ${token}` };
  t.equal((await fetch(`${checkout.url}/admin/emergency-shutdown`, { method: 'POST', headers })).status, 200);
  await checkout.logged('Service shutdown complete');
  while (existsSync(join(checkout.dir, 'var/master-agent.pid'))) await new Promise(setImmediate);
  t.match(await checkout.run('start'), { code: 75, output: /Latched[\s\S]*unlatch/ });
  t.match(await checkout.run('unlatch', '--reason', 'a drill'), { code: 0, output: /Unlatched/ });
  t.match(await checkout.run('start'), { code: 0 });
  t.match(await checkout.run('stop'), { code: 0 });
});

t.test('a PID file that was left behind is no obstacle', async (t) => {
  const checkout = new Checkout(t);
  await checkout.run('start');
  process.kill(checkout.pid, 'SIGKILL');
  t.match(await checkout.run('start'), { code: 0, output: /^Started/ });
  await checkout.run('stop');
  // No note tells whether this process is the service, so it is not taken for gone.
  const other = spawn(process.execPath, ['-e', 'setInterval(() => undefined, 1000)'], { stdio: 'ignore' });
  t.teardown(() => other.kill());
  const file = join(checkout.dir, 'var/master-agent.pid');
  writeFileSync(file, `${other.pid}\n`);
  t.match(await checkout.run('status'), { code: 3 });
  t.match(await checkout.run('stop'), { code: 1, output: /^Not stopped/ });
  t.ok(existsSync(file));
  t.equal(other.exitCode ?? other.signalCode, null, 'it is left alone');
});

t.test('what cannot be understood is said', async (t) => {
  const checkout = new Checkout(t);
  t.match(await checkout.run('help'), {
    code: 0,
    output: /^usage: manage-service\.sh \[--guard NAME\] COMMAND/,
  });
  t.match(await checkout.run(), { code: 0, output: /^usage/ });
  t.match(await checkout.run('begin'), { code: 78, output: /unknown command "begin"/ });
  t.match(await checkout.run('start', 'now'), { code: 78, output: /want nothing behind it, got "now"/ });
  t.match(await checkout.run('logs', '-n', 'many'), {
    code: 78,
    output: /want a number of lines, got "many"/,
  });
  t.match(await checkout.run('logs'), { code: 1, output: /there is no log yet/ });
  t.match(await checkout.run('install', 'here'), { code: 78, output: /install: want --offline/ });
});

t.test('a program behind the gate needs a name, and systemd', async (t) => {
  const checkout = new Checkout(t);
  for (const name of ['', 'a/b', '-x', '.env'])
    t.match(await checkout.run('--guard', name, 'start'), { code: 78, output: `--guard: want a name of` });
  t.match(await checkout.run('--guard'), { code: 78, output: '--guard: want a name of' });
  t.match(await checkout.run('--guard', 'master-agent', 'start'), { code: 78, output: /want another name/ });
  t.match(await checkout.run('--guard', 'shop', 'start'), { code: 1, output: /--guard needs systemd/ });
  t.notOk(existsSync(join(checkout.dir, 'var/master-agent.pid')), 'the service is not started instead');
});
