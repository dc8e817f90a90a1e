/** The command line of the suite. docs/judging-a-server.md says what it is for and how to read what it prints. */
import { parseArgs } from 'node:util';
import type { Scenario } from './scenario.ts';
import { SCENARIOS } from './scenarios.ts';
import { CannotRun } from './subject.ts';
import { checkRoutes, playAll, type Verdict } from './suite.ts';

const HELP = `master-agent conformance --cmd 'node server.js' [options]

Starts the server anew for each scenario, stops it, and judges what its clients see.

  --cmd COMMAND   the server; a simple command, which may begin with settings (NAME=value)
  --only NAMES    these scenarios alone, by name or by promise, separated by commas
  --runs N        each scenario so many times; it passes when it passes each time (default 1)
  --jobs N        so many scenarios at a time (default 3)
  --json          the result as JSON
  --list          the scenarios and their ideals
  --help          this

Its environment: PORT, SHUTDOWN_TIMEOUT (seconds), SCRATCH (an empty directory), sometimes START_DELAY_MS.
The routes it has to have are in docs/judging-a-server.md.

Exit: 0 all pass, 1 some fail, 2 it could not be run.
`;

const EXIT_PASSED = 0;
const EXIT_FAILED = 1;
export const EXIT_CANNOT_RUN = 2;
const MOST_RUNS = 1_000;
const MOST_JOBS = 16;

interface Options {
  readonly command: string;
  readonly scenarios: readonly Scenario[];
  readonly runs: number;
  readonly jobs: number;
  readonly json: boolean;
}

/** Where it tells: the result on `out`, what people watch and what is wrong on `err`. */
export interface Told {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

/** @returns the exit code */
export async function conformance(args: readonly string[], told: Told): Promise<number> {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        cmd: { type: 'string' },
        only: { type: 'string' },
        runs: { type: 'string', default: '1' },
        jobs: { type: 'string', default: '3' },
        json: { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    const scenarios = chosen(values.only);
    if (values.help) told.out(HELP);
    else if (values.list) told.out(list(scenarios));
    else {
      if (!values.cmd?.trim())
        throw new CannotRun('--cmd: want the command that starts the server, got none');
      const options = {
        command: values.cmd.trim(),
        scenarios,
        runs: count('--runs', values.runs, MOST_RUNS),
        jobs: count('--jobs', values.jobs, MOST_JOBS),
        json: values.json,
      };
      return await run(options, told);
    }
    return EXIT_PASSED;
  } catch (error) {
    // parseArgs explains at length; the first sentence says what is wrong.
    const message = error instanceof Error ? error.message : String(error);
    told.err(`conformance: ${message.split('\n')[0]}\n`);
    return EXIT_CANNOT_RUN;
  }
}

async function run(options: Options, { out, err }: Told): Promise<number> {
  const { command, scenarios } = options;
  await checkRoutes(command);
  const beganMs = performance.now();
  const verdicts = await playAll({
    ...options,
    onVerdict: ({ name, pass, outcome }, done) =>
      err(`[${done}/${scenarios.length}] ${pass ? 'pass' : 'FAIL'} ${name}: ${outcome}\n`),
  });
  const seconds = Math.round((performance.now() - beganMs) / 1000);
  const passed = verdicts.filter(({ pass }) => pass).length;
  const total = verdicts.length;
  out(
    options.json
      ? `${JSON.stringify({ command, passed, total, seconds, scenarios: verdicts }, undefined, 2)}\n`
      : `${report(verdicts)}\n${passed} of ${total} pass, in ${seconds} s: ${command}\n`,
  );
  const unplayed = verdicts.find(({ played }) => !played);
  if (unplayed !== undefined) throw new CannotRun(`${unplayed.name} ${unplayed.outcome}`);
  return passed === total ? EXIT_PASSED : EXIT_FAILED;
}

function chosen(only: string | undefined): readonly Scenario[] {
  if (only === undefined) return SCENARIOS;
  const names = only.split(',').map((name) => name.trim());
  for (const wanted of names) {
    if (!SCENARIOS.some(({ name, promise }) => name === wanted || promise === wanted))
      throw new CannotRun(`--only: want names that --list shows, got "${wanted}"`);
  }
  return SCENARIOS.filter(({ name, promise }) => names.includes(name) || names.includes(promise));
}

function count(option: string, text: string, most: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > most)
    throw new CannotRun(`${option}: want a whole number from 1 to ${most}, got "${text}"`);
  return value;
}

function list(scenarios: readonly Scenario[]): string {
  const width = Math.max(...scenarios.map(({ name }) => name.length));
  return scenarios
    .map(({ name, promise, ideal }) => `${promise.padEnd(8)}  ${name.padEnd(width)}  ${ideal}\n`)
    .join('');
}

function report(verdicts: readonly Verdict[]): string {
  const width = Math.max(...verdicts.map(({ name }) => name.length));
  return verdicts
    .map(({ name, promise, ideal, pass, outcome, passed, runs }) => {
      const times = runs === 1 ? '' : ` (${passed} of ${runs} runs)`;
      const line = `${pass ? 'pass' : 'FAIL'}  ${promise.padEnd(8)}  ${name.padEnd(width)}  ${outcome}${times}\n`;
      return pass ? line : `${line}${' '.repeat(width + 18)}want: ${ideal}\n`;
    })
    .join('');
}
