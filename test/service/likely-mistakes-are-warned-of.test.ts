import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { doubtsOfFile, doubtsOfNames } from '../../src/config/doubts.ts';
import { SETTINGS } from '../../src/config/settings.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

function warnings({ lines }: ServiceProcess): string[] {
  return lines.filter((line) => line.startsWith('WARNING: '));
}

/** What shells, terminals, service managers, containers and platforms set, and names that applications like. */
const COMMON = `
  HOME PATH PWD OLDPWD USER LOGNAME SHELL SHLVL TERM LANG LC_ALL TZ EDITOR PAGER DISPLAY HOSTNAME HOSTTYPE OSTYPE MAIL
  TMPDIR TMP TEMP XDG_RUNTIME_DIR SSH_AUTH_SOCK COLORTERM NO_COLOR FORCE_COLOR CI DEBUG NODE_ENV NODE_OPTIONS NODE_PATH
  npm_config_cache npm_lifecycle_event INVOCATION_ID JOURNAL_STREAM NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID LISTEN_FDS
  LISTEN_PID LISTEN_FDNAMES MAINPID STATE_DIRECTORY LOGS_DIRECTORY CACHE_DIRECTORY RUNTIME_DIRECTORY CREDENTIALS_DIRECTORY
  KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBERNETES_PORT REDIS_PORT REDIS_HOST MY_SERVICE_PORT DYNO WEB_CONCURRENCY
  DATABASE_URL REDIS_URL APP_HOST APP_PORT APP_ENV APP_NAME DB_HOST DB_PORT PGHOST PGPORT SMTP_HOST SMTP_PORT LOG_DIR LOG_FILE
  HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy API_TOKEN ACCESS_TOKEN REQUEST_ID TIMEOUT VERSION SERVICE_NAME SECRET_KEY
  STRIPE_KEY SENTRY_DSN OTEL_SERVICE_NAME PORT_HTTP METRICS_PORT MASTER_AGENT_WORKER`;

t.test('a misspelled setting is told with the one that was meant, and no common name is', async (t) => {
  for (const [name, meant] of Object.entries({
    SHUTDOWN_TIMOUT: 'SHUTDOWN_TIMEOUT',
    SHUTDOWN_TIMEOUTS: 'SHUTDOWN_TIMEOUT',
    SHTUDOWN_TIMEOTU: 'SHUTDOWN_TIMEOUT',
    shutdown_timeout: 'SHUTDOWN_TIMEOUT',
    PROT: 'PORT',
    OPSPORT: 'OPS_PORT',
    WORKER: 'WORKERS',
    ADMIN_TOKEN_FLIE: 'ADMIN_TOKEN_FILE',
    SETTING_FILE: 'SETTINGS_FILE',
  }))
    t.strictSame(doubtsOfNames([name]), [`environment: ${name} is not a setting; did you mean ${meant}?`]);
  t.strictSame(doubtsOfNames([...SETTINGS.map(({ name }) => name), 'SETTINGS_FILE']), []);
  t.strictSame(doubtsOfNames(COMMON.trim().split(/\s+/)), []);
});

t.test(
  'each line of a file that is no assignment is told by its number, and none by its content',
  async (t) => {
    const good = [
      ...['# comment', '; comment', '', '  ', 'PORT=1', 'export HOST = localhost # comment', 'APP: app.mjs'],
      ...['STATE_DIR="a', 'WORKERS', 'b" # closed here', "LOG_LEVEL='info'", 'RETRY_AFTER=', 'PID_FILE=it`s'],
    ];
    for (const end of ['\n', '\r\n']) t.strictSame(doubtsOfFile('f', good.join(end)), []);
    const bad = ['SECRET-TEXT here', 'PORT', '=1', 'HOST="not closed', 'LOG_LEVEL="info" debug', '- PORT=1'];
    const all = doubtsOfFile('f', [...good, ...bad].join('\n'));
    t.strictSame(
      all,
      bad.map((_, index) => `f:${good.length + 1 + index}: this line is not NAME=value`),
    );
  },
);

t.test('a service warns of them when it starts and reloads, and starts', async (t) => {
  const cwd = tempDir(t);
  const file = join(cwd, '.env');
  const others = 'DATABASE_URL=secret://a\nOWN="of the application"\n';
  writeFileSync(file, `SHUTDOWN_TIMOUT=3\n${others}oops\n`);
  const service = await ServiceProcess.running(t, { cwd, env: { WORKRES: '2' } });
  const left = 'WARNING: .env: not settings, left to the application: DATABASE_URL, OWN';
  t.strictSame(warnings(service), [
    'WARNING: .env:1: SHUTDOWN_TIMOUT is not a setting; did you mean SHUTDOWN_TIMEOUT?',
    'WARNING: .env:4: this line is not NAME=value',
    left,
    'WARNING: environment: WORKRES is not a setting; did you mean WORKERS?',
  ]);
  writeFileSync(file, `${others}RETRY_AFTR=3\n`);
  service.signal('SIGHUP');
  await service.line('Settings reloaded');
  t.strictSame(warnings(service).slice(4), [
    'WARNING: .env:3: RETRY_AFTR is not a setting; did you mean RETRY_AFTER?',
    left,
    'WARNING: environment: WORKRES is not a setting; did you mean WORKERS?',
  ]);
  t.notMatch(service.output, 'secret');
});

t.test('a start that fails tells of them, too', async (t) => {
  const cwd = tempDir(t);
  writeFileSync(join(cwd, '.env'), 'SHUTDOWN_TIMOUT=3\nRETRY_AFTER=x\n');
  const service = ServiceProcess.spawn(t, { cwd });
  t.strictSame(await service.exited, { code: 78, signal: null });
  t.strictSame(warnings(service), [
    'WARNING: .env:1: SHUTDOWN_TIMOUT is not a setting; did you mean SHUTDOWN_TIMEOUT?',
  ]);
  t.match(service.output, 'FATAL: RETRY_AFTER: want');
});

t.test(
  'a SETTINGS_FILE that is not there is told, and one that is there instead of .env is read',
  async (t) => {
    const cwd = tempDir(t);
    writeFileSync(join(cwd, '.env'), 'PROT=1\n');
    const gone = await ServiceProcess.running(t, { cwd, env: { SETTINGS_FILE: '/no/such/file' } });
    t.strictSame(warnings(gone), ['WARNING: SETTINGS_FILE: there is no file "/no/such/file"']);
    const file = join(cwd, 'settings');
    writeFileSync(file, 'LOG_LEVEL=warn\nMAX_INFLIGHT=1\n');
    // As systemd does: what the file says is in the environment, too.
    const env = { SETTINGS_FILE: file, LOG_LEVEL: 'info', MAX_INFLIGHT: '1' };
    const there = ServiceProcess.spawn(t, { cwd, env });
    await there.line('did you mean');
    t.strictSame(there.lines, [
      `WARNING: ${file}:2: MAX_INFLIGHT is not a setting; did you mean MAX_IN_FLIGHT?`,
    ]);
  },
);
