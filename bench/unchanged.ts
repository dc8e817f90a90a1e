/**
 * The conformance suite against applications as their own documentation starts them: alone, and with `master-agent/register`.
 * Writes its part of RESULTS.md. `--only NAME,NAME` judges these anew and keeps the rest of the last results.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { SCENARIOS } from '../test/conformance/scenarios.ts';
import { checkRoutes, playAll, type Verdict } from '../test/conformance/suite.ts';
import { machine, table } from '../test/support/figures.ts';
import { ROOT } from '../test/support/root.ts';
import { findPeers } from './peers/find.ts';
import { writeResults } from './results.ts';

const NEXT = join(ROOT, 'bench/peers/next');
const VERDICTS = join(ROOT, 'bench/unchanged/verdicts.json');

/** From the root of the checkout. */
const APPLICATIONS: Readonly<Record<string, string>> = {
  'node:http': 'node bench/unchanged/bare.mjs',
  'Express 4': 'node bench/peers/express-4.mjs',
  'Express 5': 'node bench/unchanged/express.mjs',
  'Fastify 5': 'node bench/unchanged/fastify.mjs',
  Koa: 'node bench/unchanged/koa.mjs',
  Hono: 'node bench/unchanged/hono.mjs',
  NestJS: 'node bench/unchanged/nest.mjs',
  'NestJS, shutdown hooks': 'NEST_HOOKS=yes node bench/unchanged/nest.mjs',
  'Next.js': 'node bench/peers/next/start.mjs',
  ws: 'node bench/unchanged/ws.mjs',
  'socket.io': 'node bench/unchanged/socket-io.mjs',
};
const PRELOAD = `LOG_LEVEL=fatal OPS_PORT=off STATE_DIR=$SCRATCH NODE_OPTIONS=--import=${join(ROOT, 'dist/register.js')}`;

interface Judged {
  readonly alone: readonly Verdict[];
  readonly preloaded: readonly Verdict[];
}

const { values } = parseArgs({
  options: { only: { type: 'string' }, jobs: { type: 'string', default: '2' } },
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(2));
const load = loadavg()[0] ?? 0;
const wanted = values.only?.split(',') ?? Object.keys(APPLICATIONS);
const unknown = wanted.find((name) => !(name in APPLICATIONS));
if (unknown !== undefined) {
  process.stderr.write(
    `unchanged: --only: want some of ${Object.keys(APPLICATIONS).join(',')}, got "${unknown}"\n`,
  );
  process.exit(2);
}
process.chdir(ROOT);
const scratch = mkdtempSync(join(tmpdir(), 'unchanged-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
// Installs what is not a dependency of the tests.
findPeers(scratch);
if (wanted.includes('Next.js'))
  execFileSync(join(ROOT, 'bench/peers/node_modules/.bin/next'), ['build'], {
    ...{ cwd: NEXT, stdio: ['ignore', 2, 2], env: { ...process.env, NEXT_TELEMETRY_DISABLED: '1' } },
  });
const judged: Record<string, Judged> = existsSync(VERDICTS) ? JSON.parse(readFileSync(VERDICTS, 'utf8')) : {};
for (const name of wanted) {
  const command = APPLICATIONS[name] ?? '';
  await checkRoutes(command);
  judged[name] = { alone: await play(name, command), preloaded: await play(name, `${PRELOAD} ${command}`) };
  writeFileSync(VERDICTS, JSON.stringify(judged));
}
writeResults('unchanged', results());

function play(name: string, command: string): Promise<Verdict[]> {
  return playAll({
    ...{ command, scenarios: SCENARIOS, runs: 1, jobs: Number(values.jobs) },
    onVerdict: ({ name: scenario, pass, outcome }, done) =>
      process.stderr.write(
        `${name} [${done}/${SCENARIOS.length}] ${pass ? 'pass' : 'FAIL'} ${scenario}: ${outcome}\n`,
      ),
  });
}

function results(): string {
  const rows = Object.keys(APPLICATIONS).flatMap((name) => {
    const { [name]: found } = judged;
    return found === undefined ? [] : [{ name, ...found }];
  });
  const failed = rows.flatMap(({ name, preloaded }) =>
    preloaded
      .filter(({ pass }) => !pass)
      .map(({ name: scenario, outcome }) => `- ${name}: ${scenario}: ${outcome}`),
  );
  return [
    '## Applications as they are, alone and with the preload',
    `Written by \`node --import tsx bench/unchanged.ts\` on ${new Date().toISOString().slice(0, 10)}: scenarios that each application passes as its own\n` +
      'documentation starts it, and with `NODE_OPTIONS=--import=master-agent/register`.',
    machine(availableParallelism(), load),
    table(
      ['', 'alone', 'with master-agent/register'],
      rows.map(({ name, alone, preloaded }) => [name, passed(alone), passed(preloaded)]),
    ),
    failed.length === 0 ? '' : `What failed with the preload:\n\n${failed.join('\n')}`,
  ].join('\n\n');
}

function passed(verdicts: readonly Verdict[]): string {
  return `${verdicts.filter(({ pass }) => pass).length}/${verdicts.length}`;
}
