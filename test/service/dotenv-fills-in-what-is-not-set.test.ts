import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ServiceProcess, TEST_APP, tempDir } from '../support/service-process.ts';

t.test('.env in the working directory is read, and the environment wins over it', async (t) => {
  const cwd = tempDir(t);
  writeFileSync(
    join(cwd, '.env'),
    [
      '# a comment',
      'PORT=1 # the environment says 0',
      "LOG_LEVEL='debug'",
      'export RETRY_AFTER=17',
      'MAX_IN_FLIGHT=',
      'OWN_VARIABLE="of the application"',
    ].join('\n'),
  );
  writeFileSync(
    join(cwd, 'app.mjs'),
    `export default { start({ log, config }) {
       log.info([process.env.OWN_VARIABLE, config.retryAfter, config.maxInFlight, config.logLevel].join(', '));
     } };`,
  );
  // APP is relative to the working directory, and comes from the environment here.
  const service = await ServiceProcess.running(t, { cwd, args: [], env: { APP: './app.mjs' } });
  t.ok(service.lines.includes('INFO: of the application, 17, 0, debug'));
  t.not(service.port, 1);
});

t.test('bad settings are all reported, the token by its length alone, and nothing is opened', async (t) => {
  const cwd = tempDir(t);
  writeFileSync(join(cwd, '.env'), 'PORT=http\nADMIN_TOKEN=hush-hush\nLOG_LEVEL=info\n');
  const service = ServiceProcess.spawn(t, {
    cwd,
    args: [TEST_APP],
    env: {
      ...{ PORT: 'x', SHUTDOWN_TIMEOUT: '10s', LOG_FORMAT: 'text', STATE_DIR: join(cwd, 'state') },
      PID_FILE: join(cwd, 'pid'),
    },
  });
  t.strictSame(await service.exited, { code: 78, signal: null });
  t.strictSame(service.lines, [
    'FATAL: PORT: want a port from 0 to 65535, got "x"',
    'FATAL: SHUTDOWN_TIMEOUT: want a number of seconds >= 0, at most 86400, got "10s"',
    'FATAL: ADMIN_TOKEN: want 16 or more printable characters without a space, got 9 characters',
  ]);
  t.strictSame(readdirSync(cwd), ['.env'], 'no state directory and no PID file');
});

t.test(
  'a .env that cannot be read is a mistake, not an absence; told as JSON where the log is JSON',
  async (t) => {
    const cwd = tempDir(t);
    mkdirSync(join(cwd, '.env'));
    const service = ServiceProcess.spawn(t, { cwd, env: { LOG_FORMAT: '', LOG_LEVEL: 'silent' } });
    t.strictSame(await service.exited, { code: 78, signal: null });
    t.equal(service.lines.length, 1, 'one line, however silent the log was to be');
    t.match(JSON.parse(service.output), {
      level: 'fatal',
      msg: /^\.env: want a file that can be read, got: EISDIR/,
    });
  },
);

t.test("without STATE_DIR systemd's STATE_DIRECTORY is honoured", async (t) => {
  const given = join(tempDir(t), 'given');
  await ServiceProcess.running(t, { env: { STATE_DIR: '', STATE_DIRECTORY: given } });
  t.ok(existsSync(join(given, 'running.json')));
});
