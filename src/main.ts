#!/usr/bin/env node
import { WORKER_VARIABLE } from './backends/workers/messages.ts';
import { ExitCode } from './exit-code.ts';
import { SignalTrap } from './platform/signals.ts';

/** What can stand first on the command line. Anything else is the path of an application to serve. */
const COMMANDS: Readonly<Record<string, () => Promise<{ run(args: readonly string[]): Promise<number> }>>> = {
  stop: () => import('./cli/stop.ts'),
  reload: () => import('./cli/reload.ts'),
  status: () => import('./cli/status.ts'),
  unlatch: () => import('./cli/unlatch.ts'),
  'verify-audit': () => import('./cli/verify-audit.ts'),
  help: () => import('./cli/help.ts'),
};

const [first, ...rest] = process.argv.slice(2);
const name = first?.replace(/^--(?=help$)/, '') ?? '';
const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;

// What an application says to process.exit is not how the service has ended.
const early = (): void => {
  process.exitCode = ExitCode.Internal;
};
process.on('exit', early);
const code = await play();
process.off('exit', early);
process.exit(code);

async function play(): Promise<number> {
  // The controller has made this process to be a worker, whatever the command line says.
  if (process.env[WORKER_VARIABLE] !== undefined && process.send !== undefined) return work();
  return command === undefined ? serve() : (await command()).run(rest);
}

async function work(): Promise<number> {
  const signals = new SignalTrap();
  return (await import('./backends/workers/worker.ts')).work(signals);
}

async function serve(): Promise<number> {
  // Before anything slow is imported: a SIGTERM that finds no handler ends the process without a word.
  const signals = new SignalTrap();
  const { run } = await import('./cli/serve.ts');
  return run(first === 'serve' ? rest : process.argv.slice(2), signals);
}
