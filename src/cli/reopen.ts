import { messageOf } from '../error.ts';
import { ExitCode } from '../exit-code.ts';
import { command, fail, say } from './command.ts';
import { findService } from './find-service.ts';
import { controlConfig } from './operator.ts';

const HELP = `usage: master-agent reopen

Makes the running service continue its audit log in a new file, after something else has renamed the old one. Settings
and code stay as they are: for that there is reload.

  --help   this

exit: 0 told, 1 there is no service; 78 bad configuration
`;

export function run(args: readonly string[]): Promise<number> {
  return command(HELP, args, {}, reopen);
}

async function reopen(): Promise<number> {
  const found = await findService(controlConfig());
  if (found.kind !== 'running') return fail(`Not reopened: ${found.why}`);
  try {
    process.kill(found.pid, 'SIGUSR2');
  } catch (error) {
    return fail(`Not reopened: process ${found.pid}: ${messageOf(error)}`);
  }
  say(`Process ${found.pid} reopens its audit log`);
  return ExitCode.Ok;
}
