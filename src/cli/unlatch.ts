import { userInfo } from 'node:os';
import { createInterface } from 'node:readline/promises';
import { openAudit } from '../audit/open-audit.ts';
import { auditFile, type Config } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { ExitCode, StartError } from '../exit-code.ts';
import { readLatch, releaseLatch } from '../lifecycle/latch.ts';
import { lockStateDir } from '../platform/state-lock.ts';
import { command, say } from './command.ts';
import { commandConfig } from './operator.ts';

const HELP = `usage: master-agent unlatch [--reason TEXT]

Lets the service start again after an emergency shutdown. Asks for a reason, puts it in the audit log, and keeps the
old latch beside the new state. It does not start the service.

  --reason TEXT   why it may start again; asked for on a terminal when left out
  --help          this

exit: 0 unlatched, or it was not latched; 74 the audit log could not be written (it stays latched);
      78 no reason, or bad configuration
`;

export function run(args: readonly string[]): Promise<number> {
  return command(HELP, args, { reason: { type: 'string' } }, async ({ reason }) =>
    unlatch(typeof reason === 'string' ? reason : undefined),
  );
}

async function unlatch(given: string | undefined): Promise<number> {
  const config = commandConfig();
  const latch = readLatch(config.stateDir);
  if (latch === undefined) {
    say(`Not latched: there is no emergency.json in ${config.stateDir}`);
    return ExitCode.Ok;
  }
  say(
    `Latched at ${latch.time} by ${latch.by}${latch.reason === '' ? ', without a reason' : `: ${JSON.stringify(latch.reason)}`}`,
  );
  const reason = (given ?? (await ask())).trim();
  if (reason === '') throw new Error('Say why it may start again: --reason TEXT');
  // A service that is still stopping must be gone first, and only one process may write the audit log.
  const unlock = await lockStateDir(config.stateDir);
  try {
    await putOnRecord(config, { latch, by: userName(), reason });
    const kept = await releaseLatch(config.stateDir);
    say(`Unlatched. The old latch is kept in ${kept}`);
    return ExitCode.Ok;
  } finally {
    await unlock();
  }
}

/** A user of a container may have no name. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return `user ${process.getuid?.() ?? 'unknown'}`;
  }
}

async function ask(): Promise<string> {
  if (!process.stdin.isTTY) return '';
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return await terminal.question('Why may it start again? ');
  } finally {
    terminal.close();
  }
}

/** @throws StartError 74 when the record is not on disk: the service then has to stay latched */
async function putOnRecord(config: Config, fields: object): Promise<void> {
  let failure: unknown;
  const lost = (error: Error): void => {
    failure = error;
  };
  const silent = { info: () => undefined, warn: () => undefined };
  try {
    const log = openAudit(config, { log: silent, lost });
    log?.record('unlatch', { ...fields });
    if (log === undefined || (await log.close())) return;
    const want = `AUDIT_LOG: want a log that can be written, got "${auditFile(config)}"`;
    throw new StartError(`${want}: ${messageOf(failure)}`, ExitCode.AuditLost);
  } catch (error) {
    if (!(error instanceof StartError) || error.exitCode !== ExitCode.AuditLost) throw error;
    throw new StartError(`${error.message}. It stays latched`, error.exitCode);
  }
}
