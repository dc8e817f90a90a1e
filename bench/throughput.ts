/**
 * Requests per second and CPU time per request of one JSON route, ours beside bare node:http and three frameworks.
 *
 * A machine that does other work at the same time drifts by more than the differences that matter here. So all
 * servers are up at once, one is loaded at a time in many short rounds whose order turns, and what is compared is the
 * ratio to bare node:http within the same round. CPU time is the steadier figure: its low quartile, and the median of its ratios within a round;
 * and it is the only one that means anything when the load generator is the slower side (see "busy").
 *
 * `--picture` draws the ratios too: `pictures/throughput-*.svg`.
 */
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { machine, median, medianAndSpread, quantile, spread, table } from '../test/support/figures.ts';
import { ServerProcess } from '../test/support/server-process.ts';
import { draw } from './picture.ts';
import { playRound, type Round } from './round.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '28' },
    seconds: { type: 'string', default: '0.5' },
    connections: { type: 'string', default: '50' },
    json: { type: 'boolean', default: false },
    picture: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const connections = Number(values.connections);

const load = loadavg()[0] ?? 0;
const servers = await Promise.all([
  ServerProcess.peer('bare node:http', 'bare-node.mjs'),
  ServerProcess.ours('bench/servers/app.mjs', { AUDIT_LOG: 'off' }),
  ServerProcess.ours('bench/servers/app.mjs').then((server) =>
    Object.assign(server, { name: 'master-agent, audited' }),
  ),
  ServerProcess.peer('bare again', 'bare-node.mjs'),
  ServerProcess.peer('Fastify', 'fastify.mjs'),
  ServerProcess.peer('polka', 'polka.mjs'),
  ServerProcess.peer('Express', 'express.mjs'),
]);
for (const { opsPort } of servers) {
  // From the first scrape on the process is watched: that is how it runs where metrics are wanted.
  if (opsPort > 0) await fetch(`http://127.0.0.1:${opsPort}/metrics`).then((answer) => answer.text());
}
const results = new Map<ServerProcess, Round[]>(servers.map((server) => [server, []]));
try {
  for (const server of servers) await playRound(server, { connections, seconds });
  for (let round = 0; round < rounds; round += 1) {
    for (const server of turned(servers, round))
      results.get(server)?.push(await playRound(server, { connections, seconds }));
  }
} finally {
  await Promise.all(servers.map((server) => server.kill()));
}
const figures = compare();
report();
if (values.picture) await picture();

/** The same servers, another one first each time, and every other time backwards. */
function turned<T>(items: readonly T[], round: number): T[] {
  const first = round % items.length;
  const order = [...items.slice(first), ...items.slice(0, first)];
  return round % 2 === 0 ? order : order.reverse();
}

/** Each server's figures, beside those of bare node:http in the same rounds. */
function compare() {
  const [bare] = results.values();
  return [...results].map(([{ name }, own]) => {
    const ratios = own.map(({ perSecond }, round) => perSecond / (bare?.[round]?.perSecond ?? Number.NaN));
    const cpu = own.map(({ cpuMicros }) => cpuMicros);
    return {
      name,
      perSecond: median(own.map((round) => round.perSecond)),
      ratio: median(ratios),
      ratios,
      cpuMicros: quantile(cpu, 0.25),
      cpuRatio: median(
        own.map(({ cpuMicros }, round) => (bare?.[round]?.cpuMicros ?? Number.NaN) / cpuMicros),
      ),
      cpu,
      busy: median(own.map(({ busy }) => busy)),
    };
  });
}

function report(): void {
  if (values.json) {
    console.log(JSON.stringify({ node: process.version, rounds, seconds, connections, load, figures }));
    return;
  }
  console.log(`\n## One JSON route: ${connections} connections, ${rounds} rounds of ${seconds} s each\n`);
  console.log(`${machine(availableParallelism(), load)}\n`);
  console.log(
    table(
      ['server', 'requests/s', 'of bare (spread)', 'CPU µs/request (spread)', 'of bare, by CPU', 'busy'],
      figures.map(({ name, perSecond, ratios, cpuMicros, cpu, cpuRatio, busy }) => [
        name,
        perSecond.toFixed(0),
        medianAndSpread(ratios, 2),
        `${cpuMicros.toFixed(1)} (${spread(cpu, 1)})`,
        cpuRatio.toFixed(2),
        busy.toFixed(2),
      ]),
    ),
  );
}

async function picture(): Promise<void> {
  const rows = figures
    .filter(({ name }) => name !== 'bare node:http')
    .map(({ name, ratios, ratio }) => ({
      ...{ server: `${name}  ${ratio.toFixed(2)}`, ratio },
      ...{ low: quantile(ratios, 0.25), high: quantile(ratios, 0.75) },
      ours: name.startsWith('master-agent'),
    }));
  const server = { field: 'server', type: 'nominal' as const, title: null, sort: null };
  await draw('throughput', (theme) => ({
    width: 560,
    height: { step: 34 },
    title: {
      text: 'Requests per second, of bare node:http',
      subtitle: `median of ${rounds} rounds, and the middle half of them`,
    },
    data: { values: rows },
    layer: [
      {
        data: { values: [{ at: 1 }] },
        mark: { type: 'rule', color: theme.text, strokeDash: [4, 3] },
        encoding: { x: { field: 'at', type: 'quantitative' } },
      },
      {
        mark: { type: 'bar', height: 16 },
        encoding: {
          y: server,
          x: { field: 'ratio', type: 'quantitative', title: null, scale: { domainMin: 0 } },
          color: {
            field: 'ours',
            type: 'nominal',
            legend: null,
            scale: { domain: [true, false], range: [theme.ours, theme.others] },
          },
        },
      },
      {
        mark: { type: 'rule', color: theme.text, strokeWidth: 2 },
        encoding: { y: server, x: { field: 'low', type: 'quantitative' }, x2: { field: 'high' } },
      },
    ],
  }));
}
