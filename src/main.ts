#!/usr/bin/env node
import { WORKER_VARIABLE } from './backends/workers/messages.ts';
import type { CommandName } from './cli/commands.ts';
import { ExitCode } from './exit-code.ts';
import { endProcess } from './platform/end-process.ts';
import { SignalTrap } from './platform/signals.ts';

/** The first word of the command line. Anything else is the path of an application to serve. */
const COMMANDS: Readonly<Record<CommandName, true>> = {
  ...{ check: true, stop: true, reload: true, reopen: true, status: true, emergency: true, unlatch: true },
  ...{ 'verify-audit': true, conformance: true, help: true },
};

const [first, ...rest] = process.argv.slice(2);
const word = first?.replace(/^--(?=help$)/, '') ?? '';
const command = isCommand(word) ? word : undefined;

// The application's process.exit(0) must not decide the exit code. One that calls it while it is checked is no application.
let code: number = command === 'check' ? ExitCode.Config : ExitCode.Internal;
process.on('exit', () => {
  process.exitCode = code;
});
code = await runCommand();
await endProcess(code);

async function runCommand(): Promise<number> {
  // A controller's worker, with any command line.
  const isWorker = process.env[WORKER_VARIABLE] !== undefined && process.send !== undefined;
  if (!isWorker && command !== undefined)
    return (await import('./cli/commands.ts')).commands[command].run(rest);
  // Before anything slow is imported: a SIGTERM without a handler ends the process without a line in the log.
  const signals = new SignalTrap();
  // What the end needs is loaded now: another version may lie on disk by then.
  const { flushLog } = await import('./platform/log-output.ts');
  try {
    if (isWorker) return await (await import('./backends/workers/worker.ts')).work(signals);
    const { guard, run } = await import('./cli/serve.ts');
    if (first === 'guard') return await guard(rest, signals);
    return await run(first === 'serve' ? rest : process.argv.slice(2), signals);
  } finally {
    flushLog();
  }
}

function isCommand(name: string): name is CommandName {
  return Object.hasOwn(COMMANDS, name);
}
