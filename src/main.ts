#!/usr/bin/env node
import { WORKER_VARIABLE } from './backends/workers/messages.ts';
import { ExitCode } from './exit-code.ts';
import { endProcess } from './platform/end-process.ts';
import { SignalTrap } from './platform/signals.ts';

/** What the last lines of the log get when their reader is slow, and then a disk that does not answer. */
const FLUSH_MS = 500;
const POOL_MS = 250;

/** What can stand first on the command line. Anything else is the path of an application to serve. */
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

// An application's process.exit(0) does not say how the service has ended.
let code: number = ExitCode.Internal;
process.on('exit', () => {
  process.exitCode = code;
});
code = await play();
// Imported here: it takes longer than a signal may be left without a handler.
(await import('./platform/log-output.ts')).flushLog(FLUSH_MS);
await endProcess(code, POOL_MS);

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
