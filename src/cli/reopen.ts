import { parseArgs } from 'node:util';
import { messageOf } from '../error.ts';
import { ExitCode } from '../exit-code.ts';
import { findService } from './find-service.ts';
import { complain } from './help.ts';
import { controlConfig } from './operator.ts';

const HELP = `usage: master-agent reopen

Makes the running service continue its audit log in a new file, after something else has renamed the old one. Settings
and code stay as they are: for that there is reload.

  --help   this

exit: 0 told, 1 there is no service; 78 bad configuration
`;

export async function run(args: readonly string[]): Promise<number> {
  try {
    const { values } = parseArgs({ args: [...args], options: { help: { type: 'boolean', short: 'h' } } });
    if (values.help) {
      process.stdout.write(HELP);
      return ExitCode.Ok;
    }
    const found = await findService(controlConfig());
    if (found.kind !== 'running') {
      process.stderr.write(`Not reopened: ${found.why}\n`);
      return 1;
    }
    try {
      process.kill(found.pid, 'SIGUSR2');
    } catch (error) {
      process.stderr.write(`Not reopened: process ${found.pid}: ${messageOf(error)}\n`);
      return 1;
    }
    process.stdout.write(`Process ${found.pid} reopens its audit log\n`);
    return ExitCode.Ok;
  } catch (error) {
    return complain(error);
  }
}
