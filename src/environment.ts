import { readFileSync } from 'node:fs';
import { parse, populate } from 'dotenv';
import { ConfigError } from './config.ts';
import { hasCode, messageOf } from './error.ts';

/** What the process was given, before any `.env` was read: this always wins. */
const given: Readonly<Record<string, string | undefined>> = { ...process.env };

/**
 * The environment, with what `.env` in the working directory adds to it. Variables of the application's own are put
 * into `process.env` too, as it expects. Read anew at each call, so a reload sees what was edited.
 * @throws ConfigError when there is a `.env` that cannot be read
 */
export function readEnvironment(): Record<string, string | undefined> {
  let file: Record<string, string> = {};
  try {
    file = parse(readFileSync('.env', 'utf8'));
  } catch (error) {
    if (!hasCode(error, 'ENOENT'))
      throw new ConfigError([`.env: want a file that can be read, got: ${messageOf(error)}`]);
  }
  populate(process.env as Record<string, string>, file);
  return { ...file, ...given };
}
