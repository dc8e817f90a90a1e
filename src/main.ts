#!/usr/bin/env node
import { SignalTrap } from './lifecycle/signals.ts';

/** What can stand first on the command line. Anything else is the path of an application to serve. */
const COMMANDS: Readonly<Record<string, () => Promise<{ run(args: readonly string[]): Promise<number> }>>> = {
  stop: () => import('./commands/stop.ts'),
  status: () => import('./commands/status.ts'),
  help: () => import('./commands/help.ts'),
};

const [first, ...rest] = process.argv.slice(2);
const name = first?.replace(/^--(?=help$)/, '') ?? '';
const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;

process.exit(command === undefined ? await serve() : await (await command()).run(rest));

async function serve(): Promise<number> {
  // Before anything slow is imported: a SIGTERM that finds no handler ends the process without a word.
  const signals = new SignalTrap();
  const { run } = await import('./commands/serve.ts');
  return run(first === 'serve' ? rest : process.argv.slice(2), signals);
}
