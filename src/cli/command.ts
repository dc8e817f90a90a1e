import { type ParseArgsConfig, parseArgs } from 'node:util';
import { ExitCode, StartError } from '../exit-code.ts';
import { complain } from './help.ts';

type Values = Readonly<Record<string, unknown>>;

/**
 * Runs `work` with the options of a command line, or prints `help` when that is asked for.
 * @param operand what the one argument that is no option is called; without it there may be none
 * @returns the exit code: 78 for options or a configuration that cannot be used
 */
export async function command(
  help: string,
  args: readonly string[],
  options: NonNullable<ParseArgsConfig['options']>,
  work: (values: Values, operand: string | undefined) => Promise<number>,
  operand?: string,
): Promise<number> {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: { ...options, help: { type: 'boolean', short: 'h' } },
      allowPositionals: operand !== undefined,
    });
    if (positionals.length > 1) throw new Error(`want one ${operand}, got ${positionals.join(' ')}`);
    if (!values.help) return await work(values, positionals[0]);
    process.stdout.write(help);
    return ExitCode.Ok;
  } catch (error) {
    const code = complain(error);
    return error instanceof StartError ? error.exitCode : code;
  }
}

export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Says on standard error why a command has failed. @returns its exit code */
export function fail(why: string): number {
  process.stderr.write(`${why}\n`);
  return 1;
}
