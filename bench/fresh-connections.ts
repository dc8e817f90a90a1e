/**
 * What a connection costs: CPU time of all processes for a request with `Connection: close`, ours without workers and
 * with one and two, beside bare node:http alone and under node:cluster. All servers are up at once and take turns; the
 * ratios are those of one round. Then how two workers share 100 kept connections.
 */
import { Agent, get } from 'node:http';
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import type { Status } from '../src/ops/status.ts';
import { machine, median, medianAndSpread, quantile, table } from '../test/support/figures.ts';
import { RawClient } from '../test/support/raw-client.ts';
import { ServerProcess } from '../test/support/server-process.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '12' },
    requests: { type: 'string', default: '1500' },
    clients: { type: 'string', default: '10' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const requests = Number(values.requests);
const clients = Number(values.clients);
const KEPT = 100;

const load = loadavg()[0] ?? 0;
const servers = await Promise.all([
  ServerProcess.peer('bare node:http', 'bare-node.mjs'),
  ours(0),
  ours(1),
  ours(2),
  clustered(1),
  clustered(2),
]);
const costs = new Map<ServerProcess, number[]>(servers.map((server) => [server, []]));
let shares: readonly number[];
try {
  for (const server of servers) await play(server);
  for (let round = 0; round < rounds; round += 1) {
    for (let turn = 0; turn < servers.length; turn += 1) {
      const server = servers[(round + turn) % servers.length];
      if (server !== undefined) costs.get(server)?.push(await play(server));
    }
  }
  shares = await sharesOf(servers[3]);
} finally {
  await Promise.all(servers.map((server) => server.kill()));
}
report();

async function ours(workers: number): Promise<ServerProcess> {
  const server = await ServerProcess.ours('bench/servers/app.mjs', { WORKERS: String(workers) });
  return Object.assign(server, { name: `WORKERS=${workers}` });
}

function clustered(workers: number): Promise<ServerProcess> {
  const env = { CLUSTER_WORKERS: String(workers) };
  return ServerProcess.peer(`node:cluster, ${workers}`, 'bare-node.mjs', env);
}

/** @returns µs of CPU time for each request, of all its processes */
async function play(server: ServerProcess): Promise<number> {
  const agent = new Agent({ keepAlive: false, maxSockets: clients });
  let left = requests;
  const before = server.cpuSecondsOfAll;
  await Promise.all(
    Array.from({ length: clients }, async () => {
      while (left > 0) {
        left -= 1;
        await ask(server.port, agent);
      }
    }),
  );
  return ((server.cpuSecondsOfAll - before) / requests) * 1e6;
}

function ask(port: number, agent: Agent): Promise<void> {
  return new Promise((resolve, reject) => {
    get({ port, host: '127.0.0.1', agent, headers: { Connection: 'close' } }, (response) => {
      response.resume().once('end', resolve);
    }).once('error', reject);
  });
}

/** How many of the kept connections each worker has. */
async function sharesOf(server: ServerProcess | undefined): Promise<number[]> {
  if (server === undefined) return [];
  const kept = await Promise.all(Array.from({ length: KEPT }, () => RawClient.open(server.port)));
  for (const client of kept) await client.get('/').response();
  const answer = await fetch(`http://127.0.0.1:${server.opsPort}/status`);
  const { workers }: Status = JSON.parse(await answer.text());
  for (const client of kept) client.destroy();
  return (workers ?? []).map(({ connections }) => connections);
}

function report(): void {
  const of = (name: string): number[] =>
    costs.get(servers.find((server) => server.name === name) as ServerProcess) ?? [];
  const ratio = (name: string, to: string): number[] =>
    of(name).map((cost, round) => cost / (of(to)[round] ?? Number.NaN));
  const ratios = [
    ['WORKERS=1', 'WORKERS=0'],
    ['WORKERS=1', 'node:cluster, 1'],
    ['WORKERS=2', 'node:cluster, 2'],
    ['node:cluster, 1', 'bare node:http'],
  ] as const;
  if (values.json) {
    const all = Object.fromEntries([...costs].map(([{ name }, own]) => [name, own]));
    console.log(JSON.stringify({ node: process.version, load, rounds, requests, costs: all, shares }));
    return;
  }
  console.log(`\n## A fresh connection for each request: ${rounds} rounds of ${requests}\n`);
  console.log(`${machine(availableParallelism(), load)}\n`);
  console.log(
    table(
      ['server', 'CPU µs, low quartile', 'median (least to most)'],
      [...costs].map(([{ name }, own]) => [name, quantile(own, 0.25).toFixed(0), medianAndSpread(own, 0)]),
    ),
  );
  console.log('');
  console.log(
    table(
      ['ratio', 'median', 'spread'],
      ratios.map(([name, to]) => [
        `${name} / ${to}`,
        median(ratio(name, to)).toFixed(2),
        medianAndSpread(ratio(name, to), 2),
      ]),
    ),
  );
  console.log(`\n${KEPT} kept connections over two workers: ${shares.join(' and ')}`);
}
