import { isIP } from 'node:net';
import { join } from 'node:path';
import { ExitCode } from '../exit-code.ts';

export const LOG_FORMATS = ['json', 'text', 'journal'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** The format that was asked for, or else the one that its reader wants. */
export function formatOf(format: LogFormat | undefined, terminal = process.stdout.isTTY): LogFormat {
  return format ?? (terminal ? 'text' : 'json');
}

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const ACCESS_LOGS = ['off', 'on'] as const;

const AUDIT_MODES = ['batched', 'strict'] as const;
/** `batched`: written within 100 ms, on disk at the end. `strict`: on disk before the answer leaves. */
export type AuditMode = (typeof AUDIT_MODES)[number];

/** What a value has to be. */
interface Kind<T> {
  /** In words that follow "want". */
  readonly rule: string;
  /** Undefined for a text that breaks the rule. */
  readonly parse: (text: string) => T | undefined;
  readonly unit?: string;
  /** Never shown in a message or a file. */
  readonly secret?: boolean;
}

/** A path or an address. Using it shows whether it is right. */
const text: Kind<string> = { rule: 'any text', parse: (text) => text };

const bool: Kind<boolean> = {
  rule: 'true or false',
  parse: (text) => {
    const word = text.toLowerCase();
    if (['true', 'yes', '1'].includes(word)) return true;
    return ['false', 'no', '0'].includes(word) ? false : undefined;
  },
};

/** Written in seconds with digits alone (`30`, `0.5`), held in milliseconds. */
const duration: Kind<number> = {
  rule: 'a number of seconds >= 0, at most 86400',
  // A day is longer than any drain, and well within what a timer can take.
  parse: (text) => (/^\d+(\.\d+)?$/.test(text) && Number(text) <= 86_400 ? Number(text) * 1000 : undefined),
  unit: 'seconds',
};

/** Digits alone: not `1e3`, `0x10` or `10s`. */
function whole(least: number, most: number, unit = ''): Kind<number> {
  return {
    rule: `a whole number from ${least} to ${most}`,
    parse: (text) =>
      /^\d+$/.test(text) && Number(text) >= least && Number(text) <= most ? Number(text) : undefined,
    unit,
  };
}

const count = whole(0, 2 ** 31 - 1);
const port: Kind<number> = { ...whole(0, 65_535), rule: 'a port from 0 to 65535' };
const portOrOff: Kind<number | 'off'> = {
  rule: `${port.rule}, or off`,
  parse: (text) => (text === 'off' ? text : port.parse(text)),
};

function oneOf<T extends string>(values: readonly T[]): Kind<T> {
  return { rule: `one of ${values.join(', ')}`, parse: (text) => values.find((value) => value === text) };
}

/** Kept as one text, because configurations are compared by value. */
const ports: Kind<string> = {
  rule: 'ports separated by commas',
  parse: (text) => {
    const numbers = text.split(',').map((number) => port.parse(number.trim()));
    return numbers.includes(undefined) ? undefined : numbers.join(',');
  },
};

/** Kept as one text, because configurations are compared by value: `wordsOf` reads it. */
const words: Kind<string> = {
  rule: 'a JSON array of strings, the first of which names a program',
  parse: (text) => {
    try {
      const words: unknown = JSON.parse(text);
      const valid = Array.isArray(words) && words.every((word) => typeof word === 'string') && words[0];
      return valid ? JSON.stringify(words) : undefined;
    } catch {
      return undefined;
    }
  },
};

/** The words of a command as a setting has it. */
export function wordsOf(command: string): string[] {
  return JSON.parse(command);
}

const pathOrOff: Kind<string> = {
  rule: 'a path that begins with a slash, or off',
  parse: (text) => (text === 'off' || /^\/[!-~]*$/.test(text) ? text : undefined),
};

/** Names as in a Host header, in lower case. Kept as one text, because configurations are compared by value. */
const hostNames: Kind<string> = {
  rule: 'host names separated by commas, without ports',
  parse: (text) => {
    const names = text.split(',').map((name) => name.trim().toLowerCase());
    const valid = names.every((name) => /^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?$/.test(name));
    return valid ? names.join(',') : undefined;
  },
};

/** Kept as one text, as host names are. */
const networks: Kind<string> = {
  rule: 'addresses and CIDRs (10.0.0.0/8) separated by commas',
  parse: (text) => {
    const cidrs = text.split(',').map((cidr) => cidr.trim());
    const valid = cidrs.every((cidr) => {
      const [, address = '', prefix = '0'] = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(cidr) ?? [];
      const version = isIP(address);
      return version !== 0 && Number(prefix) <= (version === 6 ? 128 : 32);
    });
    return valid ? cidrs.join(',') : undefined;
  },
};

/** Fewer characters than this can be guessed. */
const SHORTEST_TOKEN = 16;
export const TOKEN_RULE = `${SHORTEST_TOKEN} or more printable characters without a space`;

export function isToken(text: string): boolean {
  return text.length >= SHORTEST_TOKEN && /^[\x21-\x7e]+$/.test(text);
}

const token: Kind<string> = {
  rule: TOKEN_RULE,
  parse: (text) => (isToken(text) ? text : undefined),
  secret: true,
};

interface Setting<T = unknown, Fallback extends string = string> extends Kind<T> {
  /** As written in `.env`; empty when the setting has no value unless one is given. */
  readonly fallback: Fallback;
  readonly help: string;
  /** What puts a new value in place. */
  readonly change: 'reload' | 'new workers' | 'new program' | 'restart';
}

/** A reload changes it. */
function reloaded<T, F extends string>(kind: Kind<T>, fallback: F, help: string): Setting<T, F> {
  return { ...kind, fallback, help, change: 'reload' };
}

/** Only new workers take it over: with WORKERS=0 a restart changes it. */
function renewed<T, F extends string>(kind: Kind<T>, fallback: F, help: string): Setting<T, F> {
  return { ...kind, fallback, help, change: 'new workers' };
}

/** Only a new instance of a guarded program takes it over. */
function replaced<T, F extends string>(kind: Kind<T>, fallback: F, help: string): Setting<T, F> {
  return { ...kind, fallback, help, change: 'new program' };
}

/** The controller's own process holds it: only a restart changes it. */
function fixed<T, F extends string>(kind: Kind<T>, fallback: F, help: string): Setting<T, F> {
  return { ...kind, fallback, help, change: 'restart' };
}

/** Every setting, by its property of `Config`. The name in the environment follows: `stopBudgetMs` is STOP_BUDGET. */
const TABLE = {
  host: fixed(text, '0.0.0.0', 'Address of the service.'),
  port: fixed(port, '8000', 'Port of the service; 0 takes any that is free.'),
  opsHost: fixed(text, '127.0.0.1', 'Address of the ops server.'),
  opsPort: fixed(portOrOff, '8001', 'Port of the ops server (status, metrics, probes), or off.'),
  opsAllowedHosts: fixed(
    hostNames,
    '',
    "More names the ops server may be called by; addresses, localhost, OPS_HOST and this machine's name always are.",
  ),
  app: renewed(text, '', 'The application: the path of its module.'),
  shutdownTimeoutMs: reloaded(duration, '30', 'Longest wait for requests in flight when stopping.'),
  shutdownDelayMs: reloaded(duration, '0', 'Lame duck: how long health checks fail before the lock.'),
  drainSpreadMs: reloaded(
    duration,
    '0',
    'How long the telling of streams (onStop: tell) is spread over; 0: all at once.',
  ),
  drainTrace: renewed(
    bool,
    'false',
    'Log where the handler of each request that is cut waits. Each await then costs more.',
  ),
  enableFailSafe: renewed(bool, 'true', 'Answer 503 to new requests while stopping.'),
  retryAfter: reloaded(whole(0, 86_400, 'seconds'), '5', 'Retry-After of a 503.'),
  stopBudgetMs: reloaded(duration, '0', 'What the platform grants for a stop before it kills; 0: unknown.'),
  workers: renewed(whole(0, 256), '0', 'Worker processes that serve; 0: none, the service is one process.'),
  startTimeoutMs: reloaded(
    duration,
    '60',
    'How long the application, a worker or a guarded program may take to start.',
  ),
  heartbeatTimeoutMs: reloaded(duration, '10', "How long a worker's event loop may stand still."),
  maxInFlight: reloaded(count, '0', 'Requests in flight past which new ones get 503; 0: no limit.'),
  keepAliveTimeoutMs: reloaded(duration, '65', 'How long an idle connection is kept; 0: no limit.'),
  requestTimeoutMs: reloaded(duration, '300', 'Longest time for a whole request to come in; 0: no limit.'),
  headersTimeoutMs: reloaded(duration, '60', "Longest time for a request's head to come in; 0: no limit."),
  maxConnections: reloaded(count, '0', 'Connections past which new ones are dropped; 0: no limit.'),
  maxRequestsPerSocket: reloaded(count, '0', 'Requests on one connection; 0: no limit.'),
  maxPipelined: reloaded(
    whole(1, 65_535),
    '64',
    'Unanswered requests on one connection past which it is not read.',
  ),
  maxHeaderBytes: renewed(whole(1024, 1_048_576, 'bytes'), '16384', 'Largest head of a request.'),
  logLevel: reloaded(oneOf(LOG_LEVELS), 'info', 'Least level logged.'),
  logFormat: fixed(oneOf(LOG_FORMATS), '', 'json, text or journal; unset: text on a terminal, else json.'),
  accessLog: reloaded(oneOf(ACCESS_LOGS), 'off', 'on: a line in the log for each request, at its end.'),
  trustedProxies: reloaded(
    networks,
    '',
    "Proxies whose Forwarded, X-Forwarded-For and X-Request-Id are believed; unset: nobody's.",
  ),
  adminToken: reloaded(token, '', 'Opens /admin; unset: closed.'),
  adminTokenFile: reloaded(text, '', 'File that holds the token, instead.'),
  stateDir: fixed(text, './var', 'Where the service keeps what outlives it.'),
  auditLog: fixed(text, '', 'The audit log, or off; unset: audit.ndjson in STATE_DIR.'),
  auditMode: renewed(
    oneOf(AUDIT_MODES),
    'batched',
    'batched: written within 100 ms. strict: on disk before the answer leaves.',
  ),
  auditKeyFile: fixed(text, '', 'File with the key that seals the audit log; unset: sealed without one.'),
  auditMaxBytes: fixed(
    whole(0, 2 ** 40, 'bytes'),
    '268435456',
    'Size at which the audit log goes on in a new file; 0: never.',
  ),
  auditKeep: fixed(
    whole(1, 10_000),
    '16',
    'Files of the audit log that are kept beside the one being written.',
  ),
  pidFile: fixed(text, '', 'File for the process id; unset: none.'),
  guardCommand: replaced(words, '', 'The program to guard, instead of APP: a JSON array of its words.'),
  guardReady: replaced(
    pathOrOff,
    '/health',
    'Path at which the guarded program answers below 500 when it is ready; off: it accepts connections.',
  ),
  guardPort: replaced(
    port,
    '0',
    'The port of 127.0.0.1 that the guarded program always takes; 0: it is told a free one.',
  ),
  guardOverlap: reloaded(
    bool,
    'true',
    'Whether a reload may run two instances at once; false: requests are held meanwhile.',
  ),
  guardHoldMs: reloaded(duration, '10', 'How long a request is held while the guarded program restarts.'),
  guardHealthIntervalMs: reloaded(
    duration,
    '0',
    'How often, and how long, GUARD_READY is asked while the guarded program serves; 0: never.',
  ),
  guardHealthFailures: reloaded(
    whole(1, 1_000),
    '3',
    'Failed answers of GUARD_READY in a row past which the guarded program is replaced.',
  ),
  ungatedPorts: fixed(
    ports,
    '',
    "Ports of an application's own servers that stay open, such as for its metrics.",
  ),
} as const;

type Value<S> = S extends Setting<infer T, infer F> ? T | (F extends '' ? undefined : never) : never;

/** The settings, parsed. Durations are in milliseconds and end in `Ms`. */
export type Config = { readonly [K in keyof typeof TABLE]: Value<(typeof TABLE)[K]> };

export type SettingName = keyof Config;

interface NamedSetting extends Setting {
  readonly key: SettingName;
  /** In the environment. */
  readonly name: string;
}

/** `.env.example`, `--help` and the README's table are held against this by a test. */
export const SETTINGS: readonly NamedSetting[] = Object.entries(TABLE).map(([key, setting]) => ({
  ...setting,
  key: key as SettingName,
  name: key.replace(/Ms$/, '').replaceAll(/[A-Z]/g, '_$&').toUpperCase(),
}));

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

/** Runs all checks, and reports the mistakes of all at once. @throws ConfigError, or the first other error */
export async function checkAll(checks: readonly (() => unknown)[]): Promise<void> {
  const mistakes: string[] = [];
  for (const check of checks) {
    try {
      await check();
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      mistakes.push(...error.mistakes);
    }
  }
  if (mistakes.length > 0) throw new ConfigError(mistakes);
}

/**
 * Parses settings from the environment. An empty value counts as unset.
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
 * @param variables only LOG_LEVEL holds here too
 * @throws ConfigError that lists all mistakes at once
 */
export function completeConfig(partial: Partial<Config>, variables: { LOG_LEVEL?: string } = {}): Config {
  const unknown = Object.keys(partial).filter((key) => !Object.hasOwn(TABLE, key));
  return parse(
    ({ key }) => {
      const value = partial[key] ?? (key === 'logLevel' ? variables.LOG_LEVEL : undefined) ?? '';
      return String(key.endsWith('Ms') && typeof value === 'number' ? value / 1000 : value);
    },
    ({ key, name }) => `${key} (${name})`,
    unknown.map((key) => `${key}: want a property of Config, got one that it does not have`),
  );
}

/**
 * @param textOf the text given for a setting; empty for none
 * @param titleOf what a setting is called where it was given
 */
function parse(
  textOf: (setting: NamedSetting) => string,
  titleOf: (setting: NamedSetting) => string,
  mistakes: string[] = [],
): Config {
  const values = SETTINGS.map((setting) => {
    const text = textOf(setting) || setting.fallback;
    const value = text === '' ? undefined : setting.parse(text);
    if (text !== '' && value === undefined) {
      const got = setting.secret ? `${text.length} characters` : JSON.stringify(text);
      mistakes.push(`${titleOf(setting)}: want ${setting.rule}, got ${got}`);
    }
    return [setting.key, value];
  });
  // Made from the table, so it has the table's shape. What broke its rule is undefined.
  const config = Object.fromEntries(values) as Config;
  const title = (key: SettingName): string =>
    SETTINGS.filter((setting) => setting.key === key)
      .map(titleOf)
      .join();
  const { host, port, opsHost, opsPort, workers } = config;
  if (config.adminToken !== undefined && config.adminTokenFile !== undefined)
    mistakes.push(`${title('adminToken')} and ${title('adminTokenFile')} are both set: set only one of them`);
  const shareAddress =
    host === opsHost || [host, opsHost].some((name) => name === '0.0.0.0' || name === '::');
  if (port > 0 && port === opsPort && shareAddress)
    mistakes.push(`${title('opsPort')}: want another port than ${title('port')}, got ${port} for both`);
  if (config.app !== undefined && config.guardCommand !== undefined)
    mistakes.push(`${title('app')} and ${title('guardCommand')} are both set: set only one of them`);
  if (config.guardPort > 0 && workers > 1)
    mistakes.push(
      `${title('guardPort')}: want 0 for ${workers} programs (${title('workers')}), got ${config.guardPort}`,
    );
  const { drainSpreadMs, shutdownTimeoutMs } = config;
  if (drainSpreadMs > 0 && drainSpreadMs >= shutdownTimeoutMs)
    mistakes.push(
      `${title('drainSpreadMs')}: want less than ${title('shutdownTimeoutMs')} (${shutdownTimeoutMs / 1000}), ` +
        `or 0, got "${drainSpreadMs / 1000}"`,
    );
  // Workers share these limits, and a worker with a share of 0 would have no limit at all.
  for (const key of ['maxInFlight', 'maxConnections'] as const) {
    const each = `at least 1 for each worker (${title('workers')}=${workers})`;
    if (config[key] > 0 && config[key] < workers)
      mistakes.push(`${title(key)}: want 0, or ${each}, got "${config[key]}"`);
  }
  if (mistakes.length > 0) throw new ConfigError(mistakes);
  return config;
}

/**
 * @param by what reloads: a single process, or a controller with new workers, or with a new instance of a program
 * @throws ConfigError that names the settings which differ and which a reload cannot change
 */
export function assertReloadable(current: Config, next: Config, by: 'process' | 'workers' | 'program'): void {
  const frozen = SETTINGS.filter(({ key, change }) => {
    if (current[key] === next[key] || change === 'reload') return false;
    if (by === 'program') {
      const isGone = key === 'guardCommand' && next.guardCommand === undefined;
      return change === 'restart' || (change === 'new workers' && key !== 'workers') || isGone;
    }
    // Going from workers to a single process, or to a program, is another shape of service.
    return by === 'process' || change !== 'new workers' || (key === 'workers' && next.workers === 0);
  });
  if (frozen.length > 0)
    throw new ConfigError(
      frozen.map(({ name }) => `${name} cannot change in a reload; restart to change it`),
    );
}

/** Where the audit log is; undefined when it is off. */
export function auditFile({ auditLog, stateDir }: Config): string | undefined {
  return auditLog === 'off' ? undefined : (auditLog ?? join(stateDir, 'audit.ndjson'));
}
