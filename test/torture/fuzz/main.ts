/** The command line of the fuzzer: `npm run fuzz -- --help`. */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { Case } from './cases.ts';
import { type Failure, fuzz, minimize, replay } from './fuzz.ts';
import { STATES, type StateName } from './states.ts';

const HELP = `npm run fuzz -- [options]

Sends what clients should not send, over raw sockets, to services in every state, and holds what comes back, and what
the application was given, against a strict reading of RFC 9112. Everything goes to 127.0.0.1.

  --seconds N     no round is begun after so long (default 60); each state gets at least one
  --seed N        decides the cases (default: the time; it is printed)
  --guard         the services guard a program, which reads what reaches it strictly
  --state NAMES   ${STATES.join(', ')}; separated by commas (default: all)
  --round N       cases in a round: one service in one state, from its start to its end (default 400)
  --replay FILE   plays the case that a failing run has printed; - reads it from standard input
  --help          this

Exit: 0 every promise was kept, 1 one was not, 2 it could not be run.
`;

const EXIT_KEPT = 0;
const EXIT_BROKEN = 1;
const EXIT_CANNOT_RUN = 2;

process.exitCode = await main();

async function main(): Promise<number> {
  try {
    const { values } = parseArgs({
      options: {
        seconds: { type: 'string', default: '60' },
        seed: { type: 'string', default: String(Date.now() % 1_000_000) },
        guard: { type: 'boolean', default: false },
        state: { type: 'string' },
        round: { type: 'string', default: '400' },
        replay: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) {
      process.stdout.write(HELP);
      return EXIT_KEPT;
    }
    if (values.replay !== undefined) return await replayed(values.replay);
    const seed = number('seed', values.seed);
    console.log(`seed ${seed}`);
    const states = values.state?.split(',').map(stateOf);
    const forMs = number('seconds', values.seconds) * 1000;
    const { cases, dispatches, failures } = await fuzz({
      ...(states === undefined ? {} : { states }),
      ...{ seed, guards: values.guard, forMs, round: number('round', values.round) },
      told: (line) => console.log(line),
    });
    for (const failure of failures) tell(await minimize(failure));
    console.log(`seed ${seed}: ${cases} cases, ${dispatches} dispatched, ${failures.length} failures`);
    return failures.length === 0 ? EXIT_KEPT : EXIT_BROKEN;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    return EXIT_CANNOT_RUN;
  }
}

async function replayed(file: string): Promise<number> {
  const { state, ...one }: { state: StateName } & Case = JSON.parse(
    readFileSync(file === '-' ? 0 : file, 'utf8'),
  );
  const wrong = await replay(stateOf(state), one);
  for (const sentence of wrong) console.log(sentence);
  console.log(wrong.length === 0 ? 'nothing wrong' : `${wrong.length} things wrong`);
  return wrong.length === 0 ? EXIT_KEPT : EXIT_BROKEN;
}

function tell({ state, case: one, wrong }: Failure): void {
  console.log(`\nFAILED while ${state}:`);
  for (const sentence of wrong) console.log(`  ${sentence}`);
  if (one !== undefined) console.log(`replay: ${JSON.stringify({ state, ...one })}`);
}

function number(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`--${name}: want a whole number, got "${text}"`);
  return value;
}

function stateOf(name: string): StateName {
  const state = STATES.find((state) => state === name.trim());
  if (state === undefined) throw new Error(`--state: want one of ${STATES.join(', ')}, got "${name}"`);
  return state;
}
