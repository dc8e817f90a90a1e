import t from 'tap';
import {
  assertReloadable,
  type Config,
  ConfigError,
  completeConfig,
  parseConfig,
  SETTINGS,
  type SettingName,
} from '../../src/config/settings.ts';

/** What the configuration is when nothing is set. Written out, so that a default cannot change unnoticed. */
const DEFAULTS: Record<SettingName, unknown> = {
  host: '0.0.0.0',
  port: 8000,
  opsHost: '127.0.0.1',
  opsPort: 8001,
  opsAllowedHosts: undefined,
  app: undefined,
  shutdownTimeoutMs: 30_000,
  shutdownDelayMs: 0,
  drainSpreadMs: 0,
  drainTrace: false,
  enableFailSafe: true,
  retryAfter: 5,
  stopBudgetMs: 0,
  workers: 0,
  startTimeoutMs: 60_000,
  heartbeatTimeoutMs: 10_000,
  maxInFlight: 0,
  keepAliveTimeoutMs: 65_000,
  requestTimeoutMs: 300_000,
  headersTimeoutMs: 60_000,
  maxConnections: 0,
  maxRequestsPerSocket: 0,
  maxPipelined: 64,
  maxHeaderBytes: 16_384,
  logLevel: 'info',
  logFormat: undefined,
  accessLog: 'off',
  trustedProxies: undefined,
  adminToken: undefined,
  adminTokenFile: undefined,
  stateDir: './var',
  auditLog: undefined,
  auditMode: 'batched',
  auditKeyFile: undefined,
  auditMaxBytes: 268_435_456,
  auditKeep: 16,
  pidFile: undefined,
  guardCommand: undefined,
  guardReady: '/health',
  guardPort: 0,
  guardOverlap: true,
  guardHoldMs: 10_000,
  guardHealthIntervalMs: 0,
  guardHealthFailures: 3,
  ungatedPorts: undefined,
};

const SECONDS = 'a number of seconds >= 0, at most 86400';
const COUNT = 'a whole number from 0 to 2147483647';
const NOT_SECONDS = [
  '10s',
  '-1',
  '1e3',
  '0x10',
  'forever',
  '86400.5',
  '86401',
  '.5',
  '5.',
  'NaN',
  'Infinity',
];
const NOT_COUNTS = ['-1', '1.5', 'many', '1e3', '2147483648', '0x10'];

/** For each setting with a rule: the rule in words, values that hold and what they are, and values that break it. */
const RULES: Record<string, { rule: string; good: Record<string, unknown>; bad: string[] }> = {
  PORT: {
    rule: 'a port from 0 to 65535',
    good: { 0: 0, 65535: 65_535, ' 80 ': 80 },
    bad: ['-1', '65536', '80a', '8.5', 'off', '1e2'],
  },
  OPS_PORT: {
    rule: 'a port from 0 to 65535, or off',
    good: { 0: 0, 9000: 9000, off: 'off' },
    bad: ['on', 'OFF', '65536', 'http'],
  },
  OPS_ALLOWED_HOSTS: {
    rule: 'host names separated by commas, without ports',
    good: { 'ops.example.com': 'ops.example.com', 'Web1, web-2,a_b': 'web1,web-2,a_b' },
    bad: ['http://ops', 'ops:8001', 'a,,b', '*', 'a b'],
  },
  UNGATED_PORTS: {
    rule: 'ports separated by commas',
    good: { 9090: '9090', '9090, 9229': '9090,9229' },
    bad: ['9090;9229', '9090,', 'http', '65536'],
  },
  GUARD_COMMAND: {
    rule: 'a JSON array of strings, the first of which names a program',
    good: { '[ "uvicorn",  "app:app" ]': '["uvicorn","app:app"]' },
    bad: ['uvicorn app:app', '[]', '[""]', '["a", 1]', '{"0":"a"}', '"a"'],
  },
  GUARD_READY: {
    rule: 'a path that begins with a slash, or off',
    good: { '/ready?deep=1': '/ready?deep=1', off: 'off' },
    bad: ['ready', 'http://localhost/', '/a b', 'OFF'],
  },
  GUARD_PORT: { rule: 'a port from 0 to 65535', good: { 9: 9 }, bad: ['-1', '65536', 'off'] },
  GUARD_OVERLAP: { rule: 'true or false', good: { no: false }, bad: ['maybe'] },
  GUARD_HOLD: { rule: SECONDS, good: { 0: 0 }, bad: NOT_SECONDS },
  GUARD_HEALTH_INTERVAL: { rule: SECONDS, good: { 5: 5_000 }, bad: NOT_SECONDS },
  GUARD_HEALTH_FAILURES: {
    rule: 'a whole number from 1 to 1000',
    good: { 1: 1 },
    bad: ['0', '1001', '1.5'],
  },
  SHUTDOWN_TIMEOUT: { rule: SECONDS, good: { 0: 0, '0.5': 500, 86400: 86_400_000 }, bad: NOT_SECONDS },
  SHUTDOWN_DELAY: { rule: SECONDS, good: { 5: 5000 }, bad: NOT_SECONDS },
  STOP_BUDGET: { rule: SECONDS, good: { 90: 90_000 }, bad: NOT_SECONDS },
  KEEP_ALIVE_TIMEOUT: { rule: SECONDS, good: { 1: 1000 }, bad: NOT_SECONDS },
  REQUEST_TIMEOUT: { rule: SECONDS, good: { 1: 1000 }, bad: NOT_SECONDS },
  HEADERS_TIMEOUT: { rule: SECONDS, good: { 1: 1000 }, bad: NOT_SECONDS },
  DRAIN_SPREAD: { rule: SECONDS, good: { 5: 5000, '29.9': 29_900 }, bad: NOT_SECONDS },
  DRAIN_TRACE: { rule: 'true or false', good: { true: true, false: false }, bad: ['on'] },
  ENABLE_FAIL_SAFE: {
    rule: 'true or false',
    good: { true: true, TRUE: true, yes: true, 1: true, false: false, No: false, 0: false },
    bad: ['on', 'off', '2', 'ja', 'constructor', '__proto__'],
  },
  RETRY_AFTER: {
    rule: 'a whole number from 0 to 86400',
    good: { 0: 0, 86400: 86_400 },
    bad: ['-1', '1.5', '86401', '5s'],
  },
  MAX_IN_FLIGHT: { rule: COUNT, good: { 0: 0, 2147483647: 2 ** 31 - 1 }, bad: NOT_COUNTS },
  MAX_CONNECTIONS: { rule: COUNT, good: { 10: 10 }, bad: NOT_COUNTS },
  MAX_REQUESTS_PER_SOCKET: { rule: COUNT, good: { 10: 10 }, bad: NOT_COUNTS },
  MAX_PIPELINED: {
    rule: 'a whole number from 1 to 65535',
    good: { 1: 1, 65535: 65_535 },
    bad: ['0', '65536', 'none'],
  },
  MAX_HEADER_BYTES: {
    rule: 'a whole number from 1024 to 1048576',
    good: { 1024: 1024, 1048576: 1_048_576 },
    bad: ['0', '1023', '1048577', '16k'],
  },
  LOG_LEVEL: {
    rule: 'one of trace, debug, info, warn, error, fatal, silent',
    good: { trace: 'trace', warn: 'warn', silent: 'silent' },
    bad: ['warning', 'INFO', 'loud'],
  },
  ACCESS_LOG: { rule: 'one of off, on', good: { on: 'on', off: 'off' }, bad: ['true', 'ON'] },
  TRUSTED_PROXIES: {
    rule: 'addresses and CIDRs (10.0.0.0/8) separated by commas',
    good: { '10.0.0.0/8, ::1': '10.0.0.0/8,::1', 'fd00::/128': 'fd00::/128', '0.0.0.0/0': '0.0.0.0/0' },
    bad: ['10.0.0.0/33', 'fd00::/129', 'proxy', '10.0.0', '10.0.0.1/', '10.0.0.1,,::1', 'fe80::1%eth0', '*'],
  },
  WORKERS: { rule: 'a whole number from 0 to 256', good: { 0: 0, 256: 256 }, bad: ['-1', '257', 'auto'] },
  START_TIMEOUT: { rule: SECONDS, good: { 5: 5_000 }, bad: NOT_SECONDS },
  HEARTBEAT_TIMEOUT: { rule: SECONDS, good: { 5: 5_000 }, bad: NOT_SECONDS },
  AUDIT_MODE: {
    rule: 'one of batched, strict',
    good: { batched: 'batched', strict: 'strict' },
    bad: ['sync', 'STRICT'],
  },
  AUDIT_MAX_BYTES: {
    rule: 'a whole number from 0 to 1099511627776',
    good: { 0: 0, 1048576: 1_048_576 },
    bad: ['-1', '1MB', '1099511627777'],
  },
  AUDIT_KEEP: { rule: 'a whole number from 1 to 10000', good: { 90: 90 }, bad: ['0', '-1', '10001', 'all'] },
  LOG_FORMAT: {
    rule: 'one of json, text, journal',
    good: { json: 'json', text: 'text', journal: 'journal' },
    bad: ['pretty', 'JSON'],
  },
};

function mistakesOf(variables: Record<string, string | undefined>): readonly string[] {
  return mistakesIn(() => parseConfig(variables));
}

function mistakesIn(work: () => unknown): readonly string[] {
  try {
    work();
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
}

function keyOf(name: string): SettingName {
  return SETTINGS.find((setting) => setting.name === name)?.key as SettingName;
}

t.test('with nothing set every setting has its default', async (t) => {
  t.strictSame(parseConfig({}), DEFAULTS);
});

t.test(
  'every setting that can be wrong is held to its rule, and its error names it, the rule and the value',
  async (t) => {
    for (const [name, { rule, good, bad }] of Object.entries(RULES)) {
      for (const [text, value] of Object.entries(good)) {
        t.equal(parseConfig({ [name]: text })[keyOf(name)], value, `${name}=${text}`);
      }
      for (const text of bad) {
        t.strictSame(mistakesOf({ [name]: text }), [`${name}: want ${rule}, got ${JSON.stringify(text)}`]);
      }
    }
    // What is no rule's business is taken as it is; the token has tests of its own.
    const free = [
      'HOST',
      'OPS_HOST',
      'APP',
      'ADMIN_TOKEN',
      'ADMIN_TOKEN_FILE',
      'STATE_DIR',
      'PID_FILE',
    ].concat(['AUDIT_LOG', 'AUDIT_KEY_FILE']);
    const names = SETTINGS.map(({ name }) => name);
    t.strictSame(
      names.filter((name) => !free.includes(name) && !(name in RULES)),
      [],
      'no setting is left out here',
    );
    for (const name of free.filter((name) => !name.startsWith('ADMIN'))) {
      t.equal(parseConfig({ [name]: 'any text' })[keyOf(name)], 'any text', name);
    }
  },
);

t.test('an empty value counts as unset, also one of blanks', async (t) => {
  for (const blank of ['', '   ', '\t']) {
    const variables = Object.fromEntries(SETTINGS.map(({ name }) => [name, blank]));
    t.strictSame(parseConfig(variables), DEFAULTS);
  }
});

t.test('a limit that workers share has something for each of them', async (t) => {
  for (const name of ['MAX_IN_FLIGHT', 'MAX_CONNECTIONS']) {
    t.strictSame(mistakesOf({ WORKERS: '4', [name]: '3' }), [
      `${name}: want 0, or at least 1 for each worker (WORKERS=4), got "3"`,
    ]);
    for (const [workers, limit] of [
      ['4', '4'],
      ['4', '0'],
      ['0', '3'],
    ]) {
      t.strictSame(mistakesOf({ WORKERS: workers, [name]: limit }), []);
    }
  }
});

t.test('the telling of streams is over before the deadline', async (t) => {
  for (const [spread, timeout] of [
    ['30', '30'],
    ['31', '30'],
    ['0.5', '0'],
  ] as const) {
    t.strictSame(mistakesOf({ DRAIN_SPREAD: spread, SHUTDOWN_TIMEOUT: timeout }), [
      `DRAIN_SPREAD: want less than SHUTDOWN_TIMEOUT (${timeout}), or 0, got "${spread}"`,
    ]);
  }
  t.strictSame(mistakesOf({ DRAIN_SPREAD: '29.9', SHUTDOWN_TIMEOUT: '30' }), []);
  t.strictSame(mistakesOf({ DRAIN_SPREAD: '0', SHUTDOWN_TIMEOUT: '0' }), []);
});

t.test('two servers cannot share a port, unless each has an address of its own', async (t) => {
  const told = ['OPS_PORT: want another port than PORT, got 9000 for both'];
  const both = { PORT: '9000', OPS_PORT: '9000' };
  t.strictSame(mistakesOf(both), told, 'HOST is every address');
  t.strictSame(mistakesOf({ ...both, HOST: '127.0.0.1' }), told);
  t.strictSame(mistakesOf({ ...both, HOST: '10.0.0.1', OPS_HOST: '::' }), told);
  t.strictSame(mistakesOf({ ...both, HOST: '10.0.0.1' }), []);
  t.strictSame(mistakesOf({ PORT: '0', OPS_PORT: '0' }), [], 'the system gives each its own');
  t.strictSame(mistakesOf({ PORT: '8001', OPS_PORT: 'off' }), []);
});

t.test('all mistakes are reported at once', async (t) => {
  const mistakes = mistakesOf({
    PORT: 'x',
    SHUTDOWN_TIMEOUT: '10s',
    LOG_LEVEL: 'loud',
    ADMIN_TOKEN: 'short',
  });
  t.strictSame(
    mistakes.map((line) => line.split(':')[0]),
    ['PORT', 'SHUTDOWN_TIMEOUT', 'LOG_LEVEL', 'ADMIN_TOKEN'],
  );
  try {
    parseConfig({ PORT: 'x', OPS_PORT: 'y' });
    t.fail('taken');
  } catch (error) {
    t.match(error, { name: 'ConfigError', message: /^PORT: .*\nOPS_PORT: .*$/ });
  }
});

t.test('a token is held to its rule and never echoed', async (t) => {
  const want = 'ADMIN_TOKEN: want 16 or more printable characters without a space, got';
  t.equal(parseConfig({ ADMIN_TOKEN: 'sixteen-letters!' }).adminToken, 'sixteen-letters!');
  t.strictSame(mistakesOf({ ADMIN_TOKEN: 'fifteen-letters' }), [`${want} 15 characters`]);
  t.strictSame(mistakesOf({ ADMIN_TOKEN: 'with a space in the middle' }), [`${want} 26 characters`]);
  t.strictSame(mistakesOf({ ADMIN_TOKEN: 'gefährliche-zeichen' }), [`${want} 19 characters`]);
});

t.test('a token and a file with one are too many', async (t) => {
  t.strictSame(mistakesOf({ ADMIN_TOKEN: 'sixteen-letters!', ADMIN_TOKEN_FILE: '/run/token' }), [
    'ADMIN_TOKEN and ADMIN_TOKEN_FILE are both set: set only one of them',
  ]);
  t.equal(parseConfig({ ADMIN_TOKEN: '  ', ADMIN_TOKEN_FILE: '/run/token' }).adminTokenFile, '/run/token');
});

t.test('a program sets properties instead, with the same rules and defaults', async (t) => {
  t.strictSame(completeConfig({}), DEFAULTS);
  const given: Partial<Config> = {
    port: 0,
    opsPort: 'off',
    shutdownTimeoutMs: 1234,
    keepAliveTimeoutMs: 29,
    enableFailSafe: false,
    maxInFlight: 7,
    logLevel: 'error',
  };
  t.strictSame(completeConfig(given), { ...DEFAULTS, ...given });
  const wrong = { port: 70_000, shutdownTimeoutMs: -1, shutdownTimeout: 5 } as Partial<Config>;
  t.throws(() => completeConfig(wrong), {
    name: 'ConfigError',
    mistakes: [
      'shutdownTimeout: want a property of Config, got one that it does not have',
      'port (PORT): want a port from 0 to 65535, got "70000"',
      'shutdownTimeoutMs (SHUTDOWN_TIMEOUT): want a number of seconds >= 0, at most 86400, got "-0.001"',
    ],
  });
});

t.test('a reload can change the live settings alone', async (t) => {
  const current = parseConfig({});
  const refusals = (variables: Record<string, string>): readonly string[] =>
    mistakesIn(() => assertReloadable(current, parseConfig(variables), 'process'));
  t.strictSame(refusals({}), []);
  const other: Record<string, string> = { OPS_PORT: '9', ENABLE_FAIL_SAFE: 'no', LOG_FORMAT: 'text' };
  for (const { name, change } of SETTINGS) {
    const value =
      other[name] ??
      Object.entries(RULES[name]?.good ?? {}).find(([, value]) => value !== current[keyOf(name)])?.[0] ??
      'sixteen-letters!';
    const refusal = `${name} cannot change in a reload; restart to change it`;
    t.strictSame(refusals({ [name]: value }), change === 'reload' ? [] : [refusal], name);
  }
  t.strictSame(
    SETTINGS.filter(({ change }) => change !== 'reload').map(({ name }) => name),
    [
      ...['HOST', 'PORT', 'OPS_HOST', 'OPS_PORT', 'OPS_ALLOWED_HOSTS', 'APP'],
      ...['DRAIN_TRACE', 'ENABLE_FAIL_SAFE', 'WORKERS'],
      ...['MAX_HEADER_BYTES', 'LOG_FORMAT', 'STATE_DIR'],
      ...[
        'AUDIT_LOG',
        'AUDIT_MODE',
        'AUDIT_KEY_FILE',
        'AUDIT_MAX_BYTES',
        'AUDIT_KEEP',
        'PID_FILE',
        'GUARD_COMMAND',
        'GUARD_READY',
        'GUARD_PORT',
        'UNGATED_PORTS',
      ],
    ],
  );
});
