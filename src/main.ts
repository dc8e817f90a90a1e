#!/usr/bin/env node
import { WORKER_VARIABLE } from './backends/workers/messages.ts';
import { ExitCode } from './exit-code.ts';
import { endProcess } from './platform/end-process.ts';
import { SignalTrap } from './platform/signals.ts';

/** The first word of the command line. Anything else is the path of an application to serve. */
const COMMANDS: Readonly<Record<string, () => Promise<{ run(args: readonly string[]): Promise<number> }>>> = {
  stop: () => import('./cli/stop.ts'),
  reload: () => import('./cli/reload.ts'),
  reopen: () => import('./cli/reopen.ts'),
  status: () => import('./cli/status.ts'),
  unlatch: () => import('./cli/unlatch.ts'),
  'verify-audit': () => import('./cli/verify-audit.ts'),
  conformance: () => import('./cli/conformance.ts'),
  help: () => import('./cli/help.ts'),
};

const [first, ...rest] = process.argv.slice(2);
const name = first?.replace(/^--(?=help$)/, '') ?? '';
const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;

// The application's process.exit(0) must not decide the exit code.
let code: number = ExitCode.Internal;
process.on('exit', () => {
  process.exitCode = code;
});
code = await runCommand();
await endProcess(code);

async function runCommand(): Promise<number> {
  // A controller's worker, with any command line.
  const isWorker = process.env[WORKER_VARIABLE] !== undefined && process.send !== undefined;
  if (!isWorker && command !== undefined) return (await command()).run(rest);
  // Before anything slow is imported: a SIGTERM without a handler ends the process without a line in the log.
  const signals = new SignalTrap();
  if (isWorker) return (await import('./backends/workers/worker.ts')).work(signals);
  const { run } = await import('./cli/serve.ts');
  return run(first === 'serve' ? rest : process.argv.slice(2), signals);
}
