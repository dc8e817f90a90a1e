import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, populate } from 'dotenv';
import { hasCode, messageOf } from '../error.ts';
import { doubtsOfFile, doubtsOfNames } from './doubts.ts';
import { ConfigError } from './settings.ts';

export type Variables = Readonly<Record<string, string | undefined>>;

/** What the process was started with. */
interface Start {
  /** The environment before any file was read into it. */
  readonly given: Variables;
  /**
   * The file that the service manager read into the environment (EnvironmentFile in the unit). It may have changed
   * since, so each reading of the environment reads it again, and it wins.
   */
  readonly settingsFile: string | undefined;
  readonly inFile: Variables;
}

let start: Start | undefined;

/** Looks at the first call, not when this module is loaded: behind a preload, PM2 completes the environment later. */
function atTheStart(): Start {
  if (start !== undefined) return start;
  const given = { ...process.env };
  const settingsFile = given.SETTINGS_FILE || undefined;
  start = { given, settingsFile, inFile: settingsFile === undefined ? {} : tryRead(settingsFile) };
  return start;
}

/** The name under which systemd hands over the administrator's token (LoadCredential in the unit). */
const TOKEN_CREDENTIAL = 'admin-token';

/**
 * The environment, completed from `.env` in the working directory and from what systemd provides. Variables of the
 * application go into `process.env` too. Each call reads the files again, so that a reload sees what was edited.
 * @throws ConfigError when a file is there and cannot be read
 */
export function readEnvironment(): Variables {
  const { given, settingsFile, inFile } = atTheStart();
  const added = settingsFile === undefined ? readFile('.env') : {};
  const decided = settingsFile === undefined ? {} : readFile(settingsFile);
  populate(process.env as Record<string, string>, { ...added, ...decided });
  // A line that is gone from the settings file is no setting any more, although the environment still has it.
  const kept = Object.entries(given).filter(([name, value]) => inFile[name] !== value);
  return withSystemd({ ...added, ...Object.fromEntries(kept), ...decided });
}

/** What is probably a mistake, although it can be read, as lines for a warning. @throws ConfigError as above */
export function environmentDoubts(): string[] {
  const { given, settingsFile, inFile } = atTheStart();
  const file = settingsFile ?? '.env';
  const text = readText(file);
  const missing = text === undefined && file === settingsFile;
  return [
    ...(missing ? [`SETTINGS_FILE: there is no file "${file}"`] : doubtsOfFile(file, text ?? '')),
    // systemd has put the names of the file there, too.
    ...doubtsOfNames(Object.keys(given).filter((name) => !Object.hasOwn(inFile, name))),
  ];
}

/** systemd's state directory and token credential, where the settings name none. */
export function withSystemd(variables: Variables): Variables {
  const { STATE_DIR, STATE_DIRECTORY, ADMIN_TOKEN, ADMIN_TOKEN_FILE, CREDENTIALS_DIRECTORY } = variables;
  const credential = CREDENTIALS_DIRECTORY ? join(CREDENTIALS_DIRECTORY, TOKEN_CREDENTIAL) : '';
  const takesCredential = !ADMIN_TOKEN && !ADMIN_TOKEN_FILE && existsSync(credential);
  return {
    ...variables,
    STATE_DIR: STATE_DIR || STATE_DIRECTORY,
    ...(takesCredential ? { ADMIN_TOKEN_FILE: credential } : {}),
  };
}

function readFile(path: string): Record<string, string> {
  return parse(readText(path) ?? '');
}

/** Undefined when there is no such file. @throws ConfigError when it is there and cannot be read */
function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    throw new ConfigError([`${path}: want a file that can be read, got: ${messageOf(error)}`]);
  }
}

/** Nothing can report a mistake this early; the first `readEnvironment` does. */
function tryRead(path: string): Record<string, string> {
  try {
    return readFile(path);
  } catch {
    return {};
  }
}
