import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { installInto } from '../support/documents.ts';
import { assertRefused } from '../support/drain.ts';
import type { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { tempDir } from '../support/service-process.ts';
import { count, WorkersService } from '../support/workers-service.ts';

const APP = readFileSync(join(ROOT, 'test/fixtures/own-handlers-app.mjs'), 'utf8');

interface Held {
  readonly pool: WorkersService;
  readonly client: RawClient;
}

/** A service with a request in flight, whose application has a signal handler of its own. */
async function held(t: Test, handler: string, workers: number, timeout = '60'): Promise<Held> {
  const env = { HANDLER: handler, SHUTDOWN_TIMEOUT: timeout };
  const pool = await WorkersService.running(t, { workers, env, app: APP });
  const client = (await pool.connect()).get('/hold/a');
  await pool.service.line('holding a');
  return { pool, client };
}

/** The request in flight is answered whole, with the database open, and all the others are refused. */
async function drainsWhole(t: Test, { pool, client }: Held, code = 0): Promise<void> {
  assertRefused(t, await pool.get());
  pool.open('a');
  const answer = await client.response();
  t.equal(answer.status, 200);
  t.strictSame(JSON.parse(answer.body), { database: 'open' }, 'nothing was closed under it');
  t.strictSame(await pool.service.exited, { code, signal: null });
  t.match(pool.service.report(), { cut: [], in_flight_at_lock: 1, exit_code: code });
  t.notMatch(pool.service.output, 'FATAL');
}

for (const [mode, workers] of [
  ['alone', 0],
  ['with workers', 2],
] as const) {
  for (const way of ['raises it again', 'exits at once', 'exits by name']) {
    t.test(`${mode}: a handler that ${way} cuts nothing, at one Ctrl-C`, async (t) => {
      const held_ = await held(t, way, workers);
      const { service } = held_.pool;
      await service.stop('SIGINT');
      await drainsWhole(t, held_);
      t.notMatch(service.output, 'Force shutdown');
      t.match(service.output, "The application's own handlers were held back and have run: SIGINT handler ");
      if (way.startsWith('exits'))
        t.match(service.output, /The application's process.exit\([03]\) is held back until the stop is over/);
      t.match(service.output, 'stop(), with the database open', 'stop() is not left out');
    });
  }

  t.test(`${mode}: a handler that closes the database does so after the drain, before stop()`, async (t) => {
    const held_ = await held(t, 'closes the database', workers);
    const { service } = held_.pool;
    await service.stop('SIGTERM');
    await drainsWhole(t, held_);
    const ended = Math.max(workers, 1);
    t.equal(count(service.lines, 'SIGTERM 15: closing'), ended, 'once in each process');
    t.equal(count(service.lines, 'stop(), with the database closed'), ended);
    const order = ['Waiting up to', 'SIGTERM handler closeDatabase', 'closed by the handler', 'STOPPED'];
    const at = order.map((text) => service.output.indexOf(text));
    t.strictSame(
      at,
      [...at].sort((one, other) => one - other),
    );
    t.ok(at.every((index) => index >= 0));
  });

  t.test(`${mode}: a handler that ends later by process.exit is waited for`, async (t) => {
    const held_ = await held(t, 'closes and exits later', workers);
    await held_.pool.service.stop('SIGTERM');
    await drainsWhole(t, held_);
    t.match(held_.pool.service.output, 'closed by the handler');
  });

  t.test(`${mode}: a handler that fails is named, exit 70`, async (t) => {
    const held_ = await held(t, 'fails', workers);
    await held_.pool.service.stop('SIGTERM');
    await drainsWhole(t, held_, 70);
    t.match(held_.pool.service.output, "The application's SIGTERM handler fails failed");
  });

  t.test(
    `${mode}: a handler that never ends is left at the deadline, by name, and stop() still runs`,
    async (t) => {
      const held_ = await held(t, 'never ends', workers, '3');
      await held_.pool.service.stop('SIGTERM');
      await drainsWhole(t, held_, 1);
      t.match(
        held_.pool.service.output,
        /The application's SIGTERM handler neverEnds was not done after [\d.]+s/,
      );
      t.match(held_.pool.service.output, 'stop(), with the database open');
      t.ok(held_.pool.service.report().duration_seconds < 5);
    },
  );

  t.test(`${mode}: process.exit during the drain waits for it`, async (t) => {
    const pool = await WorkersService.running(t, { workers, app: APP });
    const client = (await pool.connect()).get('/exit-when-stopping');
    await pool.service.line('listening for the stop');
    pool.service.signal('SIGTERM');
    t.equal((await client.response()).status, 200);
    t.strictSame(await pool.service.exited, { code: 0, signal: null });
    t.match(pool.service.output, "The application's process.exit(0) is held back");
  });
}

t.test(
  'a handler that returns no promise delays the exit only while something is left to happen',
  async (t) => {
    for (const [way, late] of [
      ['only says so', false],
      ['keeps a timer', true],
    ] as const) {
      const held_ = await held(t, way, 2);
      const { service } = held_.pool;
      // The channel by which a test talks to a service keeps it: the worker has none but its controller's.
      await service.stop('SIGTERM');
      await drainsWhole(t, held_);
      t.equal(count(service.lines, 'handler keepTimer may not be done'), late ? 2 : 0, way);
    }
  },
);

t.test('SIGHUP reloads; a handler of the application that would end at it is held back too', async (t) => {
  const pool = await WorkersService.running(t, {
    workers: 0,
    app: APP,
    env: { HANDLER: 'exits at once' },
  });
  pool.service.signal('SIGHUP');
  await pool.service.line('Settings reloaded');
  t.equal((await pool.get('/health')).status, 200);
  await pool.service.stop('SIGTERM');
  t.strictSame(await pool.service.exited, { code: 0, signal: null });
});

t.test('a worker that a reload retires runs them as well', async (t) => {
  const pool = await WorkersService.running(t, {
    workers: 1,
    app: APP,
    env: { HANDLER: 'closes the database' },
  });
  await pool.reload();
  await pool.service.line('stop(), with the database closed');
  t.equal(count(pool.service.lines, 'SIGTERM 15: closing'), 1);
  pool.service.signal('SIGINT');
  t.strictSame(await pool.service.exited, { code: 0, signal: null });
  t.equal(count(pool.service.lines, 'SIGINT 2: closing'), 1);
});

for (const [when, name] of [
  ['before', 'earlier'],
  ['after', 'later'],
] as const) {
  t.test(
    `an embedded service that takes signals holds back a handler from ${when} it was made`,
    async (t) => {
      const cwd = tempDir(t);
      installInto(cwd, ['master-agent']);
      const own = `process.on('SIGTERM', function ${name}() { process.stdout.write('own handler\\n'); process.exit(5); });`;
      writeFileSync(
        join(cwd, 'program.mjs'),
        `import { createService } from 'master-agent';
      ${when === 'before' ? own : ''}
      let answer;
      const app = { routes: (router) => router.get('/', (_, response) => {
        process.stdout.write('in flight\\n');
        setTimeout(() => { process.stdout.write('answering\\n'); response.end('whole'); }, 500);
      }) };
      const config = { host: '127.0.0.1', port: 0, opsPort: 'off', stateDir: 'state', logFormat: 'text' };
      const service = createService({ app, config, signals: true });
      ${when === 'after' ? own : ''}
      await service.start();
      setInterval(() => undefined, 1000);
      const { port } = service.address;
      void fetch('http://127.0.0.1:' + port).then(async (got) => process.stdout.write(await got.text() + '\\n'));
      `,
      );
      const child = spawn(process.execPath, ['program.mjs'], { cwd, stdio: ['ignore', 'pipe', 'inherit'] });
      t.teardown(() => child.kill('SIGKILL'));
      let output = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        if (text.includes('in flight')) child.kill('SIGTERM');
        output += text;
      });
      const [code] = await new Promise<[number | null]>((resolve) =>
        child.once('close', (...ended) => resolve(ended as never)),
      );
      t.equal(code, 0, output);
      t.match(output, `have run: SIGTERM handler ${name}`);
      t.match(output, /answering[\s\S]*own handler[\s\S]*Service shutdown complete/);
      t.match(output, /^whole$/m);
    },
  );
}
