import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, populate } from 'dotenv';
import { hasCode, messageOf } from '../error.ts';
import { ConfigError } from './settings.ts';

type Variables = Readonly<Record<string, string | undefined>>;

/** What the process was given, before any file was read. */
const given: Variables = { ...process.env };

/**
 * The file a service manager has read into the environment at the start (EnvironmentFile in the unit names the same).
 * What it held then is no longer what it holds when the service reloads, so it is read anew and goes first.
 */
const settingsFile = given.SETTINGS_FILE || undefined;
const atTheStart = settingsFile === undefined ? {} : tryRead(settingsFile);

/** The name under which systemd hands over the administrator's token (LoadCredential in the unit). */
const TOKEN_CREDENTIAL = 'admin-token';

/**
 * The environment, with what `.env` in the working directory adds to it. Variables of the application's own are put
 * into `process.env` too, as it expects. Read anew at each call, so a reload sees what was edited.
 * @throws ConfigError when there is a file that cannot be read
 */
export function readEnvironment(): Record<string, string | undefined> {
  const added = settingsFile === undefined ? readFile('.env') : {};
  const decided = settingsFile === undefined ? {} : readFile(settingsFile);
  populate(process.env as Record<string, string>, { ...added, ...decided });
  return withCredential({ ...added, ...withoutStale(given), ...decided });
}

/** What was given, but for what came out of the settings file: a line that is gone from it is no setting any more. */
function withoutStale(variables: Variables): Variables {
  return Object.fromEntries(Object.entries(variables).filter(([name, value]) => atTheStart[name] !== value));
}

/** A token that is set by other means goes before the one that systemd keeps. */
function withCredential(variables: Variables): Record<string, string | undefined> {
  const { ADMIN_TOKEN, ADMIN_TOKEN_FILE, CREDENTIALS_DIRECTORY } = variables;
  if (ADMIN_TOKEN || ADMIN_TOKEN_FILE || !CREDENTIALS_DIRECTORY) return variables;
  const file = join(CREDENTIALS_DIRECTORY, TOKEN_CREDENTIAL);
  return existsSync(file) ? { ...variables, ADMIN_TOKEN_FILE: file } : variables;
}

/** @throws ConfigError when it is there and cannot be read */
function readFile(path: string): Record<string, string> {
  try {
    return parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return {};
    throw new ConfigError([`${path}: want a file that can be read, got: ${messageOf(error)}`]);
  }
}

/** As the service begins nobody can be told yet: the first reading says what is wrong. */
function tryRead(path: string): Record<string, string> {
  try {
    return readFile(path);
  } catch {
    return {};
  }
}
