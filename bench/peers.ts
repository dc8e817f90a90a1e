/**
 * The conformance suite against our own service and against what else there is, each server used as its documentation
 * advises (`peers/`). Writes RESULTS.md. The libraries are installed into `peers/node_modules` on demand; Go and FastAPI are
 * judged where they are on the PATH. `--servers ID,ID` judges these anew and keeps the rest of the last results.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, release, tmpdir, type } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Scenario } from '../test/conformance/scenario.ts';
import { SCENARIOS } from '../test/conformance/scenarios.ts';
import { CannotRun } from '../test/conformance/subject.ts';
import { checkRoutes, playAll, type Verdict } from '../test/conformance/suite.ts';
import { table } from '../test/support/figures.ts';
import { findPeers, type Peer } from './peers/find.ts';
import { draw, type Theme } from './picture.ts';
import { writeResults } from './results.ts';

const BENCH = fileURLToPath(new URL('.', import.meta.url));
const PEERS = join(BENCH, 'peers');
/** What RESULTS.md is made of, so that one server can be judged anew. */
const VERDICTS = join(PEERS, 'verdicts.json');

interface Judged extends Peer {
  readonly verdicts: readonly Verdict[];
}

const { values } = parseArgs({
  options: {
    servers: { type: 'string' },
    jobs: { type: 'string', default: '2' },
  },
});

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(2));

const scratch = mkdtempSync(join(tmpdir(), 'peers-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

const loadBefore = loadavg()[0] ?? 0;
const peers = findPeers(scratch);
const wanted = values.servers?.split(',') ?? peers.map(({ id }) => id);
const unknown = wanted.find((id) => !peers.some((peer) => peer.id === id));
if (unknown !== undefined) {
  process.stderr.write(
    `peers: --servers: want some of ${peers.map(({ id }) => id).join(',')}, got "${unknown}"\n`,
  );
  process.exit(2);
}
const before: readonly Judged[] =
  values.servers === undefined ? [] : (JSON.parse(readFileSync(VERDICTS, 'utf8')) as Judged[]);
const judged: Judged[] = [];
for (const peer of peers) {
  const kept = wanted.includes(peer.id) ? undefined : before.find(({ id }) => id === peer.id);
  judged.push(kept ?? (await judge(peer)));
}
writeFileSync(VERDICTS, `${JSON.stringify(judged.map(withoutCommand), undefined, 2)}\n`);
writeResults('peers', results(judged));
await picture(judged.filter(({ verdicts }) => verdicts.length > 0));

/** The command names places on this machine. */
function withoutCommand({ id, name, version, verdicts }: Judged): Judged {
  return { id, name, version, verdicts };
}

async function judge(peer: Peer): Promise<Judged> {
  const { name, command } = peer;
  if (command === undefined) return { ...peer, verdicts: [] };
  try {
    await checkRoutes(command);
  } catch (error) {
    if (error instanceof CannotRun)
      return { ...peer, version: `could not be run: ${error.message}`, verdicts: [] };
    throw error;
  }
  const verdicts = await playAll({
    command,
    scenarios: SCENARIOS,
    runs: 1,
    jobs: Number(values.jobs),
    onVerdict: ({ name: scenario, pass, outcome }, done) =>
      process.stderr.write(
        `${name} [${done}/${SCENARIOS.length}] ${pass ? 'pass' : 'FAIL'} ${scenario}: ${outcome}\n`,
      ),
  });
  return { ...peer, verdicts };
}

function results(judged: readonly Judged[]): string {
  const played = judged.filter(({ verdicts }) => verdicts.length > 0);
  const promises = [...new Set(SCENARIOS.map(({ promise }) => promise))];
  const summary = table(
    ['', ...promises, 'all'],
    played.map(({ name, verdicts }) => [
      name,
      ...promises.map((promise) => count(verdicts.filter((verdict) => verdict.promise === promise))),
      count(verdicts),
    ]),
  );
  const matrix = table(
    ['', ...played.map((_, index) => String.fromCharCode(65 + index))],
    SCENARIOS.map((scenario: Scenario, row) => [
      scenario.name,
      ...played.map(({ verdicts }) => (verdicts[row]?.pass ? 'yes' : '**no**')),
    ]),
  );
  return [
    '## What servers do when they are told to stop',
    `Written by \`npm run peers\` on ${new Date().toISOString().slice(0, 10)}: ${SCENARIOS.length} scenarios, each once, against each server, used as its own\n` +
      'documentation advises. `docs/judging-a-server.md` says what the promises mean and how to judge a server of your own;\n' +
      '`master-agent conformance --list` has the ideal of each scenario. A library that closes connections instead of refusing\n' +
      'with a 503 does what it was made to do: under *lock* it fails, and *instant* and *load* show what that costs.',
    `Machine: ${availableParallelism()} cores, ${type()} ${release().split('-')[0]}, Node ${process.version}, load average ${loadBefore.toFixed(1)} at the start.`,
    summary,
    `<picture><source media="(prefers-color-scheme: dark)" srcset="pictures/matrix-dark.svg"><img src="pictures/matrix-light.svg" alt="The verdicts below as a grid: one row for each server, one column for each scenario"></picture>`,
    '### Versions',
    judged.map(({ name, version }) => `- ${name}: ${version}`).join('\n'),
    '### Each scenario',
    played.map(({ name }, index) => `${String.fromCharCode(65 + index)}: ${name}`).join(', '),
    matrix,
    '## What the failures looked like',
    ...played.map(failures),
    '',
  ].join('\n\n');
}

function failures({ name, verdicts }: Judged): string {
  const failed = verdicts.filter(({ pass }) => !pass);
  if (failed.length === 0) return `### ${name}\n\nNone.`;
  const lines = failed.map(({ name: scenario, outcome }) => `- ${scenario}: ${outcome}`);
  return `### ${name}\n\n${lines.join('\n')}`;
}

function count(verdicts: readonly Verdict[]): string {
  return `${verdicts.filter(({ pass }) => pass).length}/${verdicts.length}`;
}

/** The verdicts as a grid: a row for each server, a column for each scenario, in groups by promise. */
async function picture(played: readonly Judged[]): Promise<void> {
  const cells = played.flatMap(({ name, verdicts }) =>
    verdicts.map(({ pass, promise }, column) => ({
      server: `${name}  ${count(verdicts)}`,
      promise,
      column,
      verdict: pass ? 'as it should be' : 'not',
    })),
  );
  const verdict = (theme: Theme) => ({
    field: 'verdict',
    type: 'nominal' as const,
    title: null,
    scale: { domain: ['as it should be', 'not'], range: [theme.answered, theme.refused] },
  });
  await draw('matrix', (theme) => ({
    data: { values: cells },
    facet: {
      column: {
        field: 'promise',
        title: null,
        sort: [...new Set(SCENARIOS.map(({ promise }) => promise))],
        header: { labelAngle: -40, labelAlign: 'left', labelAnchor: 'start', labelFontSize: 12 },
      },
    },
    spacing: 6,
    resolve: { scale: { x: 'independent' } },
    spec: {
      height: { step: 22 },
      width: { step: 5.6 },
      mark: { type: 'point', filled: true, size: 26, opacity: 1 },
      encoding: {
        x: { field: 'column', type: 'ordinal', axis: null },
        y: {
          field: 'server',
          type: 'nominal',
          title: null,
          sort: null,
          axis: { labelLimit: 0, domain: false },
        },
        color: verdict(theme),
        // Not by colour alone.
        shape: {
          ...verdict(theme),
          scale: { domain: ['as it should be', 'not'], range: ['square', 'cross'] },
        },
      },
    },
  }));
}
