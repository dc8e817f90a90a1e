/**
 * The conformance suite against applications as their own documentation starts them: alone, and with `master-agent/register`
 * or, for programs of any language, behind `master-agent guard`. Writes its part of RESULTS.md. `--only NAME,NAME` judges
 * these anew and keeps the rest of the last results. Needs go, uvicorn with FastAPI, gunicorn and php on the PATH.
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

interface Application {
  /** Both from the root of the checkout. */
  readonly alone: string;
  readonly withUs: string;
}

const OURS = 'LOG_LEVEL=fatal OPS_PORT=off STATE_DIR=$SCRATCH';
const PRELOAD = `${OURS} NODE_OPTIONS=--import=${join(ROOT, 'dist/register.js')}`;
const GUARD = `${OURS} node ${join(ROOT, 'dist/main.js')} guard --`;

function preloaded(command: string): Application {
  return { alone: command, withUs: `${PRELOAD} ${command}` };
}

function guarded(alone: string, behind = alone, settings = ''): Application {
  return { alone: `${settings} ${alone}`, withUs: `${settings} ${GUARD} ${behind}` };
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(2));
process.chdir(ROOT);
const scratch = mkdtempSync(join(tmpdir(), 'unchanged-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

const PRELOADED: Readonly<Record<string, Application>> = {
  'node:http': preloaded('node bench/unchanged/bare.mjs'),
  'Express 4': preloaded('node bench/peers/express-4.mjs'),
  'Express 5': preloaded('node bench/unchanged/express.mjs'),
  'Fastify 5': preloaded('node bench/unchanged/fastify.mjs'),
  Koa: preloaded('node bench/unchanged/koa.mjs'),
  Hono: preloaded('node bench/unchanged/hono.mjs'),
  NestJS: preloaded('node bench/unchanged/nest.mjs'),
  'NestJS with shutdown hooks': preloaded('NEST_HOOKS=yes node bench/unchanged/nest.mjs'),
  'Next.js': preloaded('node bench/peers/next/start.mjs'),
  ws: preloaded('node bench/unchanged/ws.mjs'),
  'socket.io': preloaded('node bench/unchanged/socket-io.mjs'),
};
const GO = join(scratch, 'go-http');
const UVICORN = 'uvicorn --log-level warning --app-dir bench/peers fastapi_app:app';
const GUNICORN = 'gunicorn --log-level warning --chdir bench/peers --threads 64';
const GUARDED: Readonly<Record<string, Application>> = {
  'node:http, a program': guarded('node bench/unchanged/bare.mjs'),
  'Go net/http': guarded(GO),
  'uvicorn and FastAPI': guarded(`${UVICORN} --port $PORT`, `${UVICORN} --uds {socket}`),
  gunicorn: guarded(
    `${GUNICORN} --bind 127.0.0.1:$PORT wsgi_app:app`,
    `${GUNICORN} --bind unix:{socket} wsgi_app:app`,
  ),
  "PHP's built-in server": guarded(
    'php -S 127.0.0.1:$PORT bench/peers/router.php',
    'php -S 127.0.0.1:{port} bench/peers/router.php',
    'PHP_CLI_SERVER_WORKERS=32',
  ),
};
const APPLICATIONS = { ...PRELOADED, ...GUARDED };

interface Judged {
  readonly alone: readonly Verdict[];
  readonly withUs: readonly Verdict[];
}

const { values } = parseArgs({
  options: { only: { type: 'string' }, jobs: { type: 'string', default: '2' } },
});
const load = loadavg()[0] ?? 0;
const wanted = values.only?.split(',') ?? Object.keys(APPLICATIONS);
const unknown = wanted.find((name) => !(name in APPLICATIONS));
if (unknown !== undefined) {
  process.stderr.write(
    `unchanged: --only: want some of ${Object.keys(APPLICATIONS).join(',')}, got "${unknown}"\n`,
  );
  process.exit(2);
}
// Installs what is not a dependency of the tests.
findPeers(scratch);
if (wanted.includes('Next.js'))
  execFileSync(join(ROOT, 'bench/peers/node_modules/.bin/next'), ['build'], {
    ...{ cwd: NEXT, stdio: ['ignore', 2, 2], env: { ...process.env, NEXT_TELEMETRY_DISABLED: '1' } },
  });
if (wanted.includes('Go net/http')) execFileSync('go', ['build', '-o', GO, 'bench/peers/go-http.go']);
const judged: Record<string, Judged> = existsSync(VERDICTS) ? JSON.parse(readFileSync(VERDICTS, 'utf8')) : {};
for (const name of wanted) {
  const { alone, withUs } = APPLICATIONS[name] as Application;
  await checkRoutes(alone);
  judged[name] = { alone: await play(name, alone), withUs: await play(name, withUs) };
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
  const today = new Date().toISOString().slice(0, 10);
  return [
    '## Applications and programs as they are, alone and with us',
    `Written by \`node --import tsx bench/unchanged.ts\` on ${today}: scenarios that each passes as its own documentation\n` +
      'starts it, and with `NODE_OPTIONS=--import=master-agent/register`; programs of any language as the command of `master-agent guard`.',
    machine(availableParallelism(), load),
    tableOf(PRELOADED, 'master-agent/register'),
    tableOf(GUARDED, 'master-agent guard'),
  ].join('\n\n');
}

function tableOf(applications: Readonly<Record<string, Application>>, way: string): string {
  const rows = Object.keys(applications).flatMap((name) => {
    const { [name]: found } = judged;
    return found === undefined ? [] : [{ name, ...found }];
  });
  const failed = rows.flatMap(({ name, withUs }) =>
    withUs
      .filter(({ pass }) => !pass)
      .map(({ name: scenario, outcome }) => `- ${name}: ${scenario}: ${outcome}`),
  );
  const figures = table(
    ['', 'alone', `with ${way}`],
    rows.map(({ name, alone, withUs }) => [name, passed(alone), passed(withUs)]),
  );
  return failed.length === 0 ? figures : `${figures}\n\nWhat failed with ${way}:\n\n${failed.join('\n')}`;
}

function passed(verdicts: readonly Verdict[]): string {
  return `${verdicts.filter(({ pass }) => pass).length}/${verdicts.length}`;
}
