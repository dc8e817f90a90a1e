/**
 * What a start costs, ours without workers and with one beside bare node:http with pino: the time from the start of
 * the process to its first answer, the CPU time of all its processes until then, and their resident memory at rest.
 * They take turns; ratios are those of one round.
 */
import { availableParallelism, loadavg } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { machine, median, medianAndSpread, table } from '../test/support/figures.ts';
import { RawClient } from '../test/support/raw-client.ts';
import { ServerProcess } from '../test/support/server-process.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '15' }, json: { type: 'boolean', default: false } },
});
const rounds = Number(values.rounds);
/** By then what a start leaves to be done later is done. */
const REST_MS = 500;

interface Start {
  readonly answeredMs: number;
  readonly cpuMs: number;
  readonly megabytes: number;
}

const STARTS: Readonly<Record<string, () => Promise<ServerProcess>>> = {
  'bare node:http, pino': () => ServerProcess.peer('bare', 'bare-with-pino.mjs'),
  'WORKERS=0': () => ServerProcess.ours('bench/servers/app.mjs', { WORKERS: '0' }),
  'WORKERS=1': () => ServerProcess.ours('bench/servers/app.mjs', { WORKERS: '1' }),
};
const load = loadavg()[0] ?? 0;
const names = Object.keys(STARTS);
const starts = new Map<string, Start[]>(names.map((name) => [name, []]));
for (let round = -1; round < rounds; round += 1) {
  for (let turn = 0; turn < names.length; turn += 1) {
    const name = names[(Math.max(round, 0) + turn) % names.length] ?? '';
    const start = await measure(STARTS[name] as () => Promise<ServerProcess>);
    // The first round fills the system's cache of files.
    if (round >= 0) starts.get(name)?.push(start);
  }
}
report();

async function measure(start: () => Promise<ServerProcess>): Promise<Start> {
  const startedMs = performance.now();
  const server = await start();
  try {
    const client = await RawClient.open(server.port);
    await client.get('/').response();
    const answeredMs = performance.now() - startedMs;
    const cpuMs = server.cpuSecondsOfAll * 1000;
    client.destroy();
    await delay(REST_MS);
    return { answeredMs, cpuMs, megabytes: server.residentBytesOfAll / 1e6 };
  } finally {
    await server.kill();
  }
}

function report(): void {
  if (values.json) {
    console.log(JSON.stringify({ node: process.version, load, starts: Object.fromEntries(starts) }));
    return;
  }
  const of = (name: string, figure: keyof Start): number[] =>
    (starts.get(name) ?? []).map((start) => start[figure]);
  const ratio = (name: string, figure: keyof Start): string =>
    median(of(name, figure).map((value, round) => value / (of(names[0] ?? '', figure)[round] ?? 0))).toFixed(
      2,
    );
  console.log(`\n## A start: ${rounds} rounds\n`);
  console.log(`${machine(availableParallelism(), load)} Median (least to most); ratios to the first row.\n`);
  console.log(
    table(
      ['server', 'first answer, ms', 'ratio', 'CPU, ms', 'ratio', 'resident at rest, MB'],
      names.map((name) => [
        name,
        medianAndSpread(of(name, 'answeredMs'), 0),
        ratio(name, 'answeredMs'),
        medianAndSpread(of(name, 'cpuMs'), 0),
        ratio(name, 'cpuMs'),
        medianAndSpread(of(name, 'megabytes'), 0),
      ]),
    ),
  );
}
