import * as check from './check.ts';
import * as conformance from './conformance.ts';
import * as emergency from './emergency.ts';
import * as help from './help.ts';
import * as reload from './reload.ts';
import * as reopen from './reopen.ts';
import * as status from './status.ts';
import * as stop from './stop.ts';
import * as unlatch from './unlatch.ts';
import * as verifyAudit from './verify-audit.ts';

/** What a command does with the words behind its name. @returns the exit code */
export type Command = { run(args: readonly string[]): Promise<number> };

/** The commands beside `serve`. */
export const commands = {
  check,
  stop,
  reload,
  reopen,
  status,
  emergency,
  unlatch,
  'verify-audit': verifyAudit,
  conformance,
  help,
} as const satisfies Record<string, Command>;

export type CommandName = keyof typeof commands;
