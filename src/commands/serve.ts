import { parseArgs } from 'node:util';
import { ExitCode } from '../lifecycle/exit-code.ts';
import type { SignalTrap } from '../lifecycle/signals.ts';
import { serve } from '../service/serve.ts';
import { version } from '../version.ts';
import { complain, helpText } from './help.ts';

/** `master-agent [serve] [APP]` */
export async function run(args: readonly string[], signals: SignalTrap): Promise<number> {
  let parsed: { values: { help?: boolean; version?: boolean }; positionals: string[] };
  try {
    parsed = parseArgs({
      args: [...args],
      options: { help: { type: 'boolean', short: 'h' }, version: { type: 'boolean', short: 'v' } },
      allowPositionals: true,
    });
  } catch (error) {
    return complain(error);
  }
  const { values, positionals } = parsed;
  if (values.help) process.stdout.write(helpText());
  else if (values.version) process.stdout.write(`${version}\n`);
  else if (positionals.length > 1) return complain(`want one application, got ${positionals.join(' ')}`);
  else return serve(signals, positionals[0]);
  return ExitCode.Ok;
}
