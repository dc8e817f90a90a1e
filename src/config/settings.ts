import { join } from 'node:path';
import { ExitCode } from '../exit-code.ts';

export const LOG_FORMATS = ['json', 'text', 'journal'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export const AUDIT_MODES = ['batched', 'strict'] as const;
/** `batched`: on its way within 100 ms, on disk at the end. `strict`: on disk before the answer leaves. */
export type AuditMode = (typeof AUDIT_MODES)[number];

/** One setting: its name in the environment, and everything that has to be known about it. */
interface Setting<T> {
  readonly name: string;
  /** As it would be written in `.env`; empty for none. */
  readonly fallback: string;
  readonly unit: string;
  readonly help: string;
  /** What a value has to be, in words that follow "want". */
  readonly rule: string;
  /** Never shown, in no message and no file. */
  readonly secret: boolean;
  /** Whether a reload can change it. */
  readonly live: boolean;
  /** Undefined for a value that breaks the rule. */
  readonly parse: (text: string) => T | undefined;
}

type Details = { unit?: string; secret?: boolean; live?: boolean };

function setting<T>(
  name: string,
  fallback: string,
  rule: string,
  parse: (text: string) => T | undefined,
  help: string,
  { unit = '', secret = false, live = false }: Details = {},
): Setting<T> {
  return { name, fallback, unit, help, rule, secret, live, parse };
}

/** A number written out in digits: `30`, `0.5`; not `1e3`, ` 5`, `0x10` or `10s`. */
function decimal(text: string): number | undefined {
  return /^\d+(\.\d+)?$/.test(text) ? Number(text) : undefined;
}

function wholeNumber(least: number, most: number): (text: string) => number | undefined {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : undefined;
    return value !== undefined && value >= least && value <= most ? value : undefined;
  };
}

function duration(name: string, fallback: string, help: string, live = true): Setting<number> {
  const parse = (text: string): number | undefined => {
    const value = decimal(text);
    // A day is longer than any drain, and well within what a timer can take.
    return value !== undefined && value <= 86_400 ? value * 1000 : undefined;
  };
  return setting(name, fallback, 'a number of seconds >= 0, at most 86400', parse, help, {
    unit: 'seconds',
    live,
  });
}

function count(name: string, fallback: string, help: string, live = true): Setting<number> {
  const most = 2 ** 31 - 1;
  return setting(name, fallback, `a whole number from 0 to ${most}`, wholeNumber(0, most), help, { live });
}

const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ...['true', 'yes', '1'].map((word) => [word, true] as const),
  ...['false', 'no', '0'].map((word) => [word, false] as const),
]);

function bool(name: string, fallback: string, help: string, live = false): Setting<boolean> {
  const parse = (text: string): boolean | undefined => BOOLEANS.get(text.toLowerCase());
  return setting(name, fallback, 'true or false', parse, help, { live });
}

function oneOf<T extends string>(values: readonly T[]): (text: string) => T | undefined {
  return (text) => values.find((value) => value === text);
}

/** Names as in a Host header, in lower case. Kept as one text: two configurations are compared by value. */
function hostNames(text: string): string | undefined {
  const names = text.split(',').map((name) => name.trim().toLowerCase());
  return names.every((name) => /^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?$/.test(name))
    ? names.join(',')
    : undefined;
}

const anyText = (text: string): string => text;
const port = wholeNumber(0, 65_535);

/** Fewer characters than this are guessed, not known. */
const SHORTEST_TOKEN = 16;

export function isToken(text: string): boolean {
  return text.length >= SHORTEST_TOKEN && /^[\x21-\x7e]+$/.test(text);
}

export const TOKEN_RULE = `${SHORTEST_TOKEN} or more printable characters without a space`;

/** One terabyte. */
const MOST_AUDIT_BYTES = 2 ** 40;

/** Every setting there is. `.env.example`, `--help` and the README's table are held against this by a test. */
export const SETTINGS = {
  host: setting('HOST', '0.0.0.0', 'an address of this machine', anyText, 'Address of the service.'),
  port: setting(
    'PORT',
    '8000',
    'a port from 0 to 65535',
    port,
    'Port of the service; 0 takes any that is free.',
  ),
  opsHost: setting(
    'OPS_HOST',
    '127.0.0.1',
    'an address of this machine',
    anyText,
    'Address of the ops server.',
  ),
  opsPort: setting<number | 'off'>(
    'OPS_PORT',
    '8001',
    'a port from 0 to 65535, or off',
    (text) => (text === 'off' ? 'off' : port(text)),
    'Port of the ops server (status, metrics, probes), or off.',
  ),
  opsAllowedHosts: setting(
    'OPS_ALLOWED_HOSTS',
    '',
    'host names separated by commas, without ports',
    hostNames,
    "More names the ops server may be called by; addresses, localhost, OPS_HOST and this machine's name always are.",
  ),
  app: setting('APP', '', 'the path of an ES module', anyText, 'The application: the path of its module.'),
  shutdownTimeoutMs: duration('SHUTDOWN_TIMEOUT', '30', 'Longest wait for requests in flight when stopping.'),
  shutdownDelayMs: duration('SHUTDOWN_DELAY', '0', 'Lame duck: how long health checks fail before the lock.'),
  enableFailSafe: bool('ENABLE_FAIL_SAFE', 'true', 'Answer 503 to new requests while stopping.'),
  retryAfter: setting(
    'RETRY_AFTER',
    '5',
    'a whole number from 0 to 86400',
    wholeNumber(0, 86_400),
    'Retry-After of a 503.',
    {
      unit: 'seconds',
      live: true,
    },
  ),
  stopBudgetMs: duration(
    'STOP_BUDGET',
    '0',
    'What the platform grants for a stop before it kills; 0: unknown.',
  ),
  workers: setting(
    'WORKERS',
    '0',
    'a whole number from 0 to 256',
    wholeNumber(0, 256),
    'Worker processes that serve; 0: none, the service is one process.',
  ),
  startTimeoutMs: duration(
    'START_TIMEOUT',
    '60',
    'How long the application, or a worker, may take to start.',
  ),
  heartbeatTimeoutMs: duration('HEARTBEAT_TIMEOUT', '10', "How long a worker's event loop may stand still."),
  maxInFlight: count('MAX_IN_FLIGHT', '0', 'Requests in flight past which new ones get 503; 0: no limit.'),
  keepAliveTimeoutMs: duration(
    'KEEP_ALIVE_TIMEOUT',
    '65',
    'How long an idle connection is kept; 0: no limit.',
  ),
  requestTimeoutMs: duration(
    'REQUEST_TIMEOUT',
    '300',
    'Longest time for a whole request to come in; 0: no limit.',
  ),
  headersTimeoutMs: duration(
    'HEADERS_TIMEOUT',
    '60',
    "Longest time for a request's head to come in; 0: no limit.",
  ),
  maxConnections: count('MAX_CONNECTIONS', '0', 'Connections past which new ones are dropped; 0: no limit.'),
  maxRequestsPerSocket: count('MAX_REQUESTS_PER_SOCKET', '0', 'Requests on one connection; 0: no limit.'),
  maxPipelined: setting(
    'MAX_PIPELINED',
    '64',
    'a whole number from 1 to 65535',
    wholeNumber(1, 65_535),
    'Unanswered requests on one connection past which it is not read.',
    { live: true },
  ),
  maxHeaderBytes: setting(
    'MAX_HEADER_BYTES',
    '16384',
    'a whole number from 1024 to 1048576',
    wholeNumber(1024, 1_048_576),
    'Largest head of a request.',
    { unit: 'bytes' },
  ),
  logLevel: setting<LogLevel>(
    'LOG_LEVEL',
    'info',
    `one of ${LOG_LEVELS.join(', ')}`,
    oneOf(LOG_LEVELS),
    'Least level logged.',
    {
      live: true,
    },
  ),
  logFormat: setting<LogFormat>(
    'LOG_FORMAT',
    '',
    `one of ${LOG_FORMATS.join(', ')}`,
    oneOf(LOG_FORMATS),
    'json, text or journal; unset: text on a terminal, else json.',
  ),
  adminToken: setting(
    'ADMIN_TOKEN',
    '',
    TOKEN_RULE,
    (text) => (isToken(text) ? text : undefined),
    'Opens /admin; unset: closed.',
    {
      secret: true,
      live: true,
    },
  ),
  adminTokenFile: setting(
    'ADMIN_TOKEN_FILE',
    '',
    'the path of a file',
    anyText,
    'File that holds the token, instead.',
    {
      live: true,
    },
  ),
  stateDir: setting(
    'STATE_DIR',
    './var',
    'the path of a directory',
    anyText,
    'Where the service keeps what outlives it.',
  ),
  auditLog: setting(
    'AUDIT_LOG',
    '',
    'the path of a file, or off',
    anyText,
    'The audit log, or off; unset: audit.ndjson in STATE_DIR.',
  ),
  auditMode: setting<AuditMode>(
    'AUDIT_MODE',
    'batched',
    `one of ${AUDIT_MODES.join(', ')}`,
    oneOf(AUDIT_MODES),
    'batched: written within 100 ms. strict: on disk before the answer leaves.',
  ),
  auditKeyFile: setting(
    'AUDIT_KEY_FILE',
    '',
    'the path of a file',
    anyText,
    'File with the key that seals the audit log; unset: sealed without one.',
  ),
  auditMaxBytes: setting(
    'AUDIT_MAX_BYTES',
    '268435456',
    `a whole number from 0 to ${MOST_AUDIT_BYTES}`,
    wholeNumber(0, MOST_AUDIT_BYTES),
    'Size at which the audit log goes on in a new file; 0: never.',
    { unit: 'bytes' },
  ),
  auditKeep: setting(
    'AUDIT_KEEP',
    '16',
    'a whole number from 1 to 10000',
    wholeNumber(1, 10_000),
    'Files of the audit log that are kept beside the one being written.',
  ),
  pidFile: setting('PID_FILE', '', 'the path of a file', anyText, 'File for the process id; unset: none.'),
} as const;

type Settings = typeof SETTINGS;
type Value<K extends keyof Settings> = Settings[K] extends Setting<infer T> ? T : never;

/** Those that have no value unless one is given. */
type Unset =
  | 'opsAllowedHosts'
  | 'app'
  | 'logFormat'
  | 'adminToken'
  | 'adminTokenFile'
  | 'auditLog'
  | 'auditKeyFile'
  | 'pidFile';

/** The settings, parsed. Durations are in milliseconds and end in `Ms`. */
export type Config = { readonly [K in Exclude<keyof Settings, Unset>]: Value<K> } & {
  readonly [K in Unset]: Value<K> | undefined;
};

export type SettingName = keyof Config;

/** Every mistake in a configuration, one line each: the setting, the rule and the value. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly exitCode = ExitCode.Config;
  readonly mistakes: readonly string[];

  constructor(mistakes: readonly string[], options?: ErrorOptions) {
    super(mistakes.join('\n'), options);
    this.mistakes = mistakes;
  }
}

/**
 * Parses settings from variables, by their names in the environment. An empty value counts as unset.
 * @throws ConfigError that lists all mistakes at once
 */
export function parseConfig(variables: Readonly<Record<string, string | undefined>>): Config {
  return parse(
    ({ name }) => variables[name]?.trim() ?? '',
    ({ name }) => name,
  );
}

/**
 * The configuration of a service inside another program: by property instead of by variable, with the same rules.
 * @throws ConfigError that lists all mistakes at once
 */
export function completeConfig(partial: Partial<Config>): Config {
  const unknown = Object.keys(partial).filter((key) => !Object.hasOwn(SETTINGS, key));
  return parse(
    (_, key) => {
      const value = partial[key];
      if (value === undefined) return '';
      return String(key.endsWith('Ms') && typeof value === 'number' ? value / 1000 : value);
    },
    ({ name }, key) => `${key} (${name})`,
    unknown.map((key) => `${key}: want a property of Config, got one that it does not have`),
  );
}

/**
 * @param read the text of a setting; empty for none
 * @param told what a setting is called where it was set
 */
function parse(
  read: (rules: Setting<unknown>, key: SettingName) => string,
  told: (rules: Setting<unknown>, key: SettingName) => string,
  mistakes: string[] = [],
): Config {
  const settings = Object.entries(SETTINGS) as [SettingName, Setting<unknown>][];
  const parsed = settings.map(([key, rules]): [SettingName, unknown] => {
    const text = read(rules, key) || rules.fallback;
    const value = text === '' ? undefined : rules.parse(text);
    if (text !== '' && value === undefined) {
      const got = rules.secret ? `${text.length} characters` : JSON.stringify(text);
      mistakes.push(`${told(rules, key)}: want ${rules.rule}, got ${got}`);
    }
    return [key, value];
  });
  const { adminToken, adminTokenFile } = SETTINGS;
  if (read(adminToken, 'adminToken') !== '' && read(adminTokenFile, 'adminTokenFile') !== '') {
    const [token, file] = [told(adminToken, 'adminToken'), told(adminTokenFile, 'adminTokenFile')];
    mistakes.push(`${token}: want it unset when ${file} is set, got both`);
  }
  // Workers share these limits out, and one of them that may have nothing would serve nobody.
  // The table above is what this object was made from, so it has the table's shape.
  const values = Object.fromEntries(parsed) as Partial<Config>;
  const { workers = 0 } = values;
  for (const key of ['maxInFlight', 'maxConnections'] as const) {
    const limit = values[key] ?? 0;
    if (limit > 0 && limit < workers) {
      const [name, other] = [told(SETTINGS[key], key), told(SETTINGS.workers, 'workers')];
      mistakes.push(`${name}: want 0, or at least 1 for each worker (${other}=${workers}), got "${limit}"`);
    }
  }
  if (mistakes.length > 0) throw new ConfigError(mistakes);
  return values as Config;
}

/** What the controller's own process holds: new workers cannot change it. */
const HELD: ReadonlySet<string> = new Set([
  ...['HOST', 'PORT', 'OPS_HOST', 'OPS_PORT', 'OPS_ALLOWED_HOSTS', 'STATE_DIR', 'PID_FILE'],
  ...['LOG_FORMAT', 'AUDIT_LOG', 'AUDIT_KEY_FILE', 'AUDIT_MAX_BYTES', 'AUDIT_KEEP'],
]);

/**
 * The environment names of settings that differ and that a reload cannot change.
 * @param by one process changes what it can while it runs; with workers all that is not the controller's own
 */
export function frozenDifferences(
  current: Config,
  next: Config,
  by: 'process' | 'workers' = 'process',
): string[] {
  // From one process to several, or back, is another shape of service.
  const reshaped = by === 'workers' && next.workers === 0;
  return Object.entries(SETTINGS)
    .filter(([key, rules]) => current[key as SettingName] !== next[key as SettingName] && isFrozen(rules))
    .map(([, rules]) => rules.name);

  function isFrozen({ name, live }: Setting<unknown>): boolean {
    if (by === 'process') return !live;
    return HELD.has(name) || (name === 'WORKERS' && reshaped);
  }
}

/** Where the audit log is; undefined when it is off. */
export function auditFile({ auditLog, stateDir }: Config): string | undefined {
  return auditLog === 'off' ? undefined : (auditLog ?? join(stateDir, 'audit.ndjson'));
}
