import { accessSync, constants, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, delimiter, join, resolve } from 'node:path';
import { type Config, ConfigError, wordsOf } from '../../config/settings.ts';
import { hasCode } from '../../error.ts';

/** The path of a Unix socket fits into sun_path (unix(7)), with its terminating zero. */
const LONGEST_SOCKET_PATH = 107;
/** The longest name of a socket in the directory. */
const LONGEST_NAME = '/9999999.sock'.length;

/** Where an instance accepts connections, which are all ours. */
export type Address = { readonly path: string } | { readonly host: string; readonly port: number };

/** What to run, and where it will be found. */
export interface Launch {
  /** The name of the program, for people. */
  readonly name: string;
  readonly words: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly address: Address;
}

/**
 * What is ours alone: secrets, what the service manager has given to this process, and the address of the gate, which
 * the program must not take for its own.
 */
const OURS = [
  ...['ADMIN_TOKEN', 'ADMIN_TOKEN_FILE', 'AUDIT_KEY_FILE'],
  ...['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID', 'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES'],
  ...['HOST', 'PORT'],
];

/**
 * A directory for the sockets that only this user may enter, so that nobody gets round the gate: in the state
 * directory, which has one service, or where that path is too long for a socket, in the system's for temporary files.
 * @throws ConfigError when neither can be had
 */
export function openSocketDirectory(stateDir: string): string {
  const own = resolve(stateDir, 'guard');
  if (fits(own)) {
    // What a run that was killed has left behind.
    rmSync(own, { recursive: true, force: true });
    mkdirSync(own, { mode: 0o700 });
    return own;
  }
  const other = join(tmpdir(), 'master-agent-guard-');
  if (fits(`${other}XXXXXX`)) return mkdtempSync(other);
  throw new ConfigError([
    `STATE_DIR: want a path short enough for a Unix socket (at most ${LONGEST_SOCKET_PATH} bytes), got "${own}"`,
  ]);
}

function fits(directory: string): boolean {
  return Buffer.byteLength(directory) + LONGEST_NAME <= LONGEST_SOCKET_PATH;
}

/**
 * Fills in `{socket}` and `{port}`, and the environment. Without a command somebody else runs the program.
 * @param number tells its socket from those of other instances
 * @throws ConfigError when there is no such program; the system's error when no port is free
 */
export async function planLaunch(
  { guardCommand = '[]', guardPort }: Config,
  variables: NodeJS.ProcessEnv,
  directory: string,
  number: number,
): Promise<Launch> {
  const words = wordsOf(guardCommand);
  const [file] = words;
  const host = '127.0.0.1';
  if (file === undefined) return { name: 'elsewhere', words, env: {}, address: { host, port: guardPort } };
  assertProgram(file, variables.PATH);
  const env = { ...process.env, ...variables };
  const { CREDENTIALS_DIRECTORY: credentials, ADMIN_TOKEN_FILE, AUDIT_KEY_FILE } = env;
  for (const name of OURS) delete env[name];
  if (credentials && [ADMIN_TOKEN_FILE, AUDIT_KEY_FILE].some((secret) => secret?.startsWith(credentials)))
    delete env.CREDENTIALS_DIRECTORY;
  const name = basename(file);
  if (words.some((word) => word.includes('{socket}'))) {
    const path = join(directory, `${number}.sock`);
    const filled = words.map((word) => word.replaceAll('{socket}', path));
    return { name, words: filled, env, address: { path } };
  }
  const port = guardPort > 0 ? guardPort : await freePort(host);
  const filled = words.map((word) => word.replaceAll('{port}', String(port)));
  return { name, words: filled, env: { ...env, HOST: host, PORT: String(port) }, address: { host, port } };
}

/** @throws ConfigError for what a shell would call "not found" or "permission denied" */
export function assertProgram(file: string, path = ''): void {
  const places = file.includes('/') ? [file] : path.split(delimiter).map((place) => join(place || '.', file));
  if (places.some(isProgram)) return;
  const where = file.includes('/') ? '' : ' in PATH';
  throw new ConfigError([
    `GUARD_COMMAND: want a program that can be run, got "${file}": no such file${where}`,
  ]);
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'EACCES', 'ENOTDIR')) return false;
    throw error;
  }
}

function freePort(host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen({ host, port: 0 }, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
