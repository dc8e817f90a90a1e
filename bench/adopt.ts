/**
 * What `master-agent/register` costs a server that is started with it, beside the same one without: CPU time per request
 * of one JSON route, and the time from the start of the process to its first answer. All servers are up at once and are
 * loaded in turns; ratios are those of one round.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { machine, median, medianAndSpread, quantile, table } from '../test/support/figures.ts';
import { RawClient } from '../test/support/raw-client.ts';
import { ROOT } from '../test/support/root.ts';
import { ServerProcess } from '../test/support/server-process.ts';
import { playRound } from './round.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '28' },
    starts: { type: 'string', default: '15' },
    seconds: { type: 'string', default: '0.5' },
    kinds: { type: 'string', default: 'node:http,Express,Fastify' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const starts = Number(values.starts);
const seconds = Number(values.seconds);
const KINDS = { 'node:http': 'bare-node.mjs', Express: 'express.mjs', Fastify: 'fastify.mjs' };
const WAYS = ['alone', 'preloaded, AUDIT_LOG=off', 'preloaded'] as const;
type Way = (typeof WAYS)[number];

const load = loadavg()[0] ?? 0;
const scratch = mkdtempSync(join(tmpdir(), 'master-agent-bench-'));
let stateDirs = 0;
try {
  const costs = [];
  const kinds = (Object.keys(KINDS) as (keyof typeof KINDS)[]).filter((kind) =>
    values.kinds.split(',').includes(kind),
  );
  for (const kind of kinds) costs.push(...(await costOf(kind)));
  if (values.json)
    console.log(JSON.stringify({ node: process.version, load, rounds, seconds, starts, costs }));
  else report(costs);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function start(kind: keyof typeof KINDS, way: Way): Promise<ServerProcess> {
  stateDirs += 1;
  const preload = {
    NODE_OPTIONS: `--import=${join(ROOT, 'dist/register.js')}`,
    ...{ OPS_PORT: '0', LOG_FORMAT: 'json', STATE_DIR: join(scratch, String(stateDirs)) },
    ...(way === 'preloaded' ? {} : { AUDIT_LOG: 'off' }),
  };
  return ServerProcess.peer(`${kind}, ${way}`, KINDS[kind], way === 'alone' ? {} : preload);
}

async function costOf(kind: keyof typeof KINDS) {
  const cpu = WAYS.map((): number[] => []);
  const firstMs = WAYS.map((): number[] => []);
  const servers = await Promise.all(WAYS.map((way) => start(kind, way)));
  try {
    for (const server of servers) {
      await server.line('Accepting requests on');
      await playRound(server, { connections: 50, seconds });
    }
    for (let round = 0; round < rounds; round += 1) {
      for (const index of turned(round)) {
        const { cpuMicros } = await playRound(servers[index] as ServerProcess, { connections: 50, seconds });
        cpu[index]?.push(cpuMicros);
      }
    }
  } finally {
    await Promise.all(servers.map((server) => server.kill()));
  }
  for (let round = -1; round < starts; round += 1) {
    for (const index of turned(round + 1)) {
      const beganMs = performance.now();
      const server = await start(kind, WAYS[index] as Way);
      const client = await RawClient.open(server.port);
      await client.get('/').response();
      // The first round fills the system's cache of files.
      if (round >= 0) firstMs[index]?.push(performance.now() - beganMs);
      client.destroy();
      await server.kill();
    }
  }
  return WAYS.map((way, index) => {
    const own = cpu[index] ?? [];
    const first = firstMs[index] ?? [];
    return {
      ...{ kind, way, cpuMicros: quantile(own, 0.25), firstMs: first },
      cpuRatios: own.map((micros, round) => micros / (cpu[0]?.[round] ?? Number.NaN)),
      laterMs: median(first.map((ms, round) => ms - (firstMs[0]?.[round] ?? Number.NaN))),
    };
  });
}

/** Another one first each time. */
function turned(round: number): number[] {
  return WAYS.map((_, index) => (index + round) % WAYS.length);
}

function report(costs: Awaited<ReturnType<typeof costOf>>): void {
  console.log(`\n## master-agent/register: ${rounds} rounds of ${seconds} s, ${starts} starts\n`);
  console.log(
    `${machine(availableParallelism(), load)} Low quartile of the CPU time; medians (least to most).\n`,
  );
  console.log(
    table(
      ['server', 'CPU µs/request', 'of alone', 'first answer, ms', 'later, ms'],
      costs.map(({ kind, way, cpuMicros, cpuRatios, firstMs, laterMs }) => [
        `${kind}, ${way}`,
        cpuMicros.toFixed(1),
        medianAndSpread(cpuRatios, 2),
        medianAndSpread(firstMs, 0),
        laterMs.toFixed(0),
      ]),
    ),
  );
}
