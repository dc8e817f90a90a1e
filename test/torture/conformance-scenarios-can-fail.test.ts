import { join } from 'node:path';
import t from 'tap';
import type { Scenario } from '../conformance/scenario.ts';
import { SCENARIOS } from '../conformance/scenarios.ts';
import { play } from '../conformance/suite.ts';
import { ROOT } from '../support/root.ts';

const SUITE = join(ROOT, 'test/conformance');

const OURS =
  `HOST=127.0.0.1 OPS_PORT=off LOG_LEVEL=fatal STATE_DIR=$SCRATCH ` +
  `"${process.execPath}" "${join(ROOT, 'dist/main.js')}" "${join(SUITE, 'app.mjs')}"`;

/** What leaves at once cannot fail to leave: those scenarios need a server that takes its time instead. */
const SLEEPER = new Set(['leave', 'start']);
const SLEEPER_TOO = new Set(['sigint-idle', 'sigterm-during-start', 'sigterm-as-it-listens']);

function naive({ promise, name }: Scenario): string {
  const habit = SLEEPER.has(promise) || SLEEPER_TOO.has(name) ? 'sleeps' : 'exits';
  return `"${process.execPath}" "${join(SUITE, 'naive.mjs')}" ${habit}`;
}

// Most of a scenario is waiting.
t.jobs = 4;
t.setTimeout(600_000);

t.test('names are unique, and each has an ideal', async (t) => {
  t.equal(new Set(SCENARIOS.map(({ name }) => name)).size, SCENARIOS.length);
  for (const { name, ideal } of SCENARIOS) t.match(ideal, /\w/, name);
  t.ok(SCENARIOS.length >= 35);
});

for (const scenario of SCENARIOS) {
  // A load keeps both cores busy: clients that stand still beside it lose what no server can answer.
  const isLoad = scenario.promise === 'load';
  t.test(scenario.name, { buffered: !isLoad }, async (t) => {
    const ours = play(scenario, OURS);
    if (isLoad) await ours;
    const [right, wrong] = await Promise.all([ours, playUntilItFails(scenario)]);
    t.equal(right.pass, true, `our service: ${right.outcome}`);
    t.equal(wrong.pass, false, `${naive(scenario).split(' ').at(-1)}: ${wrong.outcome}`);
  });
}

/** What arrives in the instant of the signal may have been answered before it: that is chance, three times it is not. */
async function playUntilItFails(scenario: Scenario): ReturnType<typeof play> {
  let verdict = await play(scenario, naive(scenario));
  for (let plays = 1; verdict.pass && plays < 3; plays += 1) verdict = await play(scenario, naive(scenario));
  return verdict;
}
