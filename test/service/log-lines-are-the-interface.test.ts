import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { LogFormat, LogLevel } from '../../src/config/settings.ts';
import { sendJson } from '../../src/index.ts';
import { createLogger } from '../../src/platform/logger.ts';
import { Doors, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';
import { MAIN, ServiceProcess, tempDir } from '../support/service-process.ts';
import { WorkersService } from '../support/workers-service.ts';

type Log = ReturnType<typeof createLogger>;

/** What a logger of this format has written when `write` is done. */
function written(
  t: Test,
  format: LogFormat,
  write: (log: Log) => void,
  { level = 'trace', ...more }: { level?: LogLevel; terminal?: boolean; worker?: number } = {},
): string {
  const file = join(tempDir(t), 'log');
  const fd = openSync(file, 'w');
  write(createLogger({ level, format, fd, ...more }));
  closeSync(fd);
  return readFileSync(file, 'utf8');
}

function oneOfEach(log: Log): void {
  for (const level of ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const)
    log[level](`at ${level}`);
}

function failure(): Error {
  const error = new Error('broken');
  error.stack = 'Error: broken\n    at one (file.ts:1:1)\n    at two (file.ts:2:2)';
  return error;
}

t.test('a clean stop is told in exactly these words', async (t) => {
  const service = await ServiceProcess.running(t);
  const busy = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  const from = service.lines.length;
  service.signal('SIGTERM');
  await service.line('Waiting up to');
  service.release('a');
  await busy.response();
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.strictSame(service.lines.slice(0, from), [
    `INFO: Service state: STARTING - Configuration loaded (pid ${service.pid})`,
    `INFO: Audit log opened: ${join(service.stateDir, 'audit.ndjson')} (batched)`,
    `INFO: Ops server listening on http://127.0.0.1:${service.opsPort}`,
    "INFO: No administrator's credential: /admin is closed (set ADMIN_TOKEN or ADMIN_TOKEN_FILE)",
    `INFO: Application started: ${service.child.spawnargs.at(-1)}`,
    `INFO: Service state: RUNNING - Accepting requests on http://127.0.0.1:${service.port}`,
    'INFO: holding a',
  ]);
  t.strictSame(service.lines.slice(from), [
    'INFO: Received signal 15. Initiating graceful shutdown (fail-safe)...',
    'WARNING: Service state: STOPPING - Rejecting new requests (fail-safe mode). 1 in-flight requests remaining.',
    'INFO: Waiting up to 30s for 1 in-flight requests to complete...',
    'INFO: Service state: STOPPED - All requests completed gracefully',
    'INFO: Service shutdown complete',
  ]);
});

t.test('without anything in flight no wait is announced', async (t) => {
  const { service, lines } = await running(t, { config: { shutdownTimeoutMs: 1500 } });
  await service.stop('SIGINT');
  t.strictSame(
    lines.slice(-4).map(({ level, msg }) => `${level} ${msg}`),
    [
      'info Received signal 2. Initiating graceful shutdown (fail-safe)...',
      'warn Service state: STOPPING - Rejecting new requests (fail-safe mode). 0 in-flight requests remaining.',
      'info Service state: STOPPED - All requests completed gracefully',
      'info Service shutdown complete',
    ],
  );
});

t.test('a stop that takes longer than the platform grants is warned of at the start', async (t) => {
  const config = { shutdownDelayMs: 5000, shutdownTimeoutMs: 30_000 };
  const { lines } = await running(t, { config: { ...config, stopBudgetMs: 39_900 } });
  t.match(
    lines.filter(({ level }) => level === 'warn'),
    [
      {
        msg:
          'STOP_BUDGET: a stop can take 40s (SHUTDOWN_DELAY + SHUTDOWN_TIMEOUT + 5s for the flush), ' +
          'but the platform kills after 39.9s',
      },
    ],
  );
  for (const stopBudgetMs of [0, 40_000]) {
    const enough = await running(t, { config: { ...config, stopBudgetMs } });
    t.strictSame(
      enough.lines.filter(({ level }) => level === 'warn'),
      [],
    );
  }
});

t.test('text: the level, a colon and the message; an error’s stack below it', async (t) => {
  t.equal(
    written(t, 'text', oneOfEach),
    'TRACE: at trace\nDEBUG: at debug\nINFO: at info\nWARNING: at warn\nERROR: at error\nFATAL: at fatal\n',
  );
  t.equal(
    written(t, 'text', (log) => log.error({ err: failure(), other: 1 }, 'It broke')),
    'ERROR: It broke\nError: broken\n    at one (file.ts:1:1)\n    at two (file.ts:2:2)\n',
  );
});

t.test(
  'text on a terminal: time, level in colour, message, fields; the words of a line stay together',
  async (t) => {
    const { NO_COLOR, TERM } = process.env;
    t.teardown(() => Object.assign(process.env, { NO_COLOR: NO_COLOR ?? '', TERM: TERM ?? '' }));
    Object.assign(process.env, { NO_COLOR: '', TERM: 'xterm' });
    const terminal = { terminal: true };
    const colours = written(t, 'text', oneOfEach, terminal).trimEnd().split('\n');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one
    const LINE = /^\x1b\[2m\d\d:\d\d:\d\d\.\d{3}\x1b\[0m \x1b\[([\d;]+)m([A-Z]+: at [a-z]+)\x1b\[0m$/;
    t.strictSame(
      colours.map((line) => LINE.exec(line)?.slice(1)),
      [
        ...[
          ['2', 'TRACE: at trace'],
          ['2', 'DEBUG: at debug'],
          ['32', 'INFO: at info'],
        ],
        ...[
          ['33', 'WARNING: at warn'],
          ['31', 'ERROR: at error'],
          ['1;31', 'FATAL: at fatal'],
        ],
      ],
    );
    process.env.NO_COLOR = '1';
    const plain = written(
      t,
      'text',
      (log) => {
        log
          .child({ request: 'a-1' })
          .info({ path: '/a b', n: 3, deep: { x: '\x1b[2J' } }, 'Done \x9b2J\u202e');
        log.error({ err: failure() }, 'It broke');
      },
      { ...terminal, worker: 4711 },
    );
    t.match(
      plain.replaceAll(/^\d\d:\d\d:\d\d\.\d{3} /gm, ''),
      'INFO: Done \\u{9b}2J\\u{202e} worker=4711 request=a-1 path="/a b" n=3 deep={"x":"\\u001b[2J"}\n' +
        'ERROR: It broke worker=4711\nError: broken\n    at one (file.ts:1:1)\n    at two (file.ts:2:2)\n',
      'and nobody controls the terminal',
    );
  },
);

t.test('a service on a real terminal writes for people', async (t) => {
  const terminal = spawn('/usr/bin/script', ['-qec', `exec ${process.execPath} ${MAIN}`, '/dev/null'], {
    env: {
      ...{ ...process.env, NO_COLOR: '', TERM: 'xterm', STATE_DIR: tempDir(t) },
      ...{ HOST: '127.0.0.1', PORT: '0', OPS_PORT: 'off' },
    },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => terminal.kill('SIGKILL'));
  let shown = '';
  terminal.stdout.on('data', (chunk) => {
    shown += String(chunk);
  });
  while (!shown.includes('RUNNING')) await once(terminal.stdout, 'data');
  terminal.stdin.write('\x03');
  const [code] = await once(terminal, 'exit');
  t.equal(code, 0, shown);
  t.match(shown, '\x1b[32mINFO: Received signal 2. Initiating graceful shutdown (fail-safe)...\x1b[0m');
  t.match(shown, '\x1b[33mWARNING: Service state: STOPPING - Rejecting new requests (fail-safe mode).');
});

t.test('each line of a worker says which worker, in every format', async (t) => {
  const one = (log: Log): void => log.info('Here');
  t.equal(written(t, 'text', one, { worker: 4711 }), 'INFO: Here (worker 4711)\n');
  t.equal(written(t, 'journal', one, { worker: 4711 }), '<6>INFO: Here (worker 4711)\n');
  t.match(JSON.parse(written(t, 'json', one, { worker: 4711 })), { msg: 'Here', worker: 4711 });
  t.notMatch(written(t, 'json', one), 'worker');
  const pool = await WorkersService.running(t, { workers: 2 });
  const pids = await pool.pids(2);
  const started = pool.service.lines.flatMap(
    (line) => /^INFO: Application started: .* \(worker (\d+)\)$/.exec(line)?.[1] ?? [],
  );
  t.strictSame(started.map(Number).sort(), [...pids].sort());
});

t.test('journal: every line has the priority of its level, those of a stack too', async (t) => {
  t.equal(
    written(t, 'journal', oneOfEach),
    '<7>TRACE: at trace\n<7>DEBUG: at debug\n<6>INFO: at info\n<4>WARNING: at warn\n<3>ERROR: at error\n<2>FATAL: at fatal\n',
  );
  t.equal(
    written(t, 'journal', (log) => log.fatal({ err: failure() }, 'It broke')),
    '<2>FATAL: It broke\n<2>Error: broken\n<2>    at one (file.ts:1:1)\n<2>    at two (file.ts:2:2)\n',
  );
});

t.test('json: one object a line, with the level’s name, the time and the fields', async (t) => {
  const lines = written(t, 'json', oneOfEach)
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.strictSame(
    lines.map(({ level, msg }) => [level, msg]),
    ['trace', 'debug', 'info', 'warn', 'error', 'fatal'].map((level) => [level, `at ${level}`]),
  );
  for (const { time } of lines) t.match(time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  t.match(
    JSON.parse(written(t, 'json', (log) => log.error({ err: failure(), request: 'a-1' }, 'It broke'))),
    { level: 'error', msg: 'It broke', request: 'a-1', err: { message: 'broken', stack: /at two/ } },
  );
});

t.test('below the level nothing is written', async (t) => {
  t.equal(written(t, 'text', oneOfEach, { level: 'error' }), 'ERROR: at error\nFATAL: at fatal\n');
  t.equal(written(t, 'text', oneOfEach, { level: 'silent' }), '');
});

t.test('a descriptor that fails loses lines, never the service', async (t) => {
  // Always full.
  const fd = openSync('/dev/full', 'w');
  const log = createLogger({ level: 'info', format: 'text', fd });
  for (let index = 0; index < 1000; index += 1) log.info('x'.repeat(2000));
  await new Promise((resolve) => setImmediate(resolve));
  closeSync(fd);
  t.pass('still here');
});

t.test('refusals are summed up once a second, not told one by one', async (t) => {
  const doors = new Doors();
  const { service, port, lines, line } = await running(t, {
    app: {
      routes: (router) =>
        router.get('/hold', async (_request, response) => {
          doors.open('held');
          await doors.wait('release');
          sendJson(response, 200, {});
        }),
    },
  });
  const busy = (await RawClient.open(port)).get('/hold');
  await doors.wait('held');
  const clients = await Promise.all(Array.from({ length: 30 }, () => RawClient.open(port)));
  const stopped = service.stop();
  const refusals = (): string[] => lines.map(({ msg }) => msg).filter((msg) => msg.startsWith('Refused'));
  for (const client of clients.slice(0, 20)) t.equal((await client.get('/').response()).status, 503);
  await line('Refused');
  t.match(refusals(), [/^Refused \d+ requests?: stopping$/]);
  const first = Number(refusals()[0]?.split(' ')[1]);
  for (const client of clients.slice(20)) t.equal((await client.get('/').response()).status, 503);
  // What is left is told at the end, before the stop is over.
  doors.open('release');
  await busy.response();
  const report = await stopped;
  t.equal(report.rejected, 30);
  const told = refusals().map((msg) => Number(msg.split(' ')[1]));
  t.equal(told[0], first);
  t.ok(told.length <= 15, `${told.length} lines for 30 refusals`);
  t.equal(
    told.reduce((sum, count) => sum + count, 0),
    30,
  );
  t.ok(lines.findLastIndex(({ msg }) => msg.startsWith('Refused')) < lines.length - 2);
});
