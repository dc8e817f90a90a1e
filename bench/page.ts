/**
 * What an open page costs: requests per second of one JSON route with and without somebody who watches `GET /events`.
 *
 * One server, loaded in many short rounds; every other one with the pages open, and each pair in the other order than
 * the one before. What is compared is the ratio within a pair, and CPU time per request, which is the steadier figure.
 */
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { machine, median, medianAndSpread, table } from '../test/support/figures.ts';
import { ServerProcess } from '../test/support/server-process.ts';
import { playRound, type Round } from './round.ts';

const { values } = parseArgs({
  options: {
    pairs: { type: 'string', default: '30' },
    seconds: { type: 'string', default: '1' },
    connections: { type: 'string', default: '50' },
    pages: { type: 'string', default: '1,10' },
  },
});
const [pairs, seconds, connections] = [values.pairs, values.seconds, values.connections].map(Number) as [
  number,
  number,
  number,
];

const load = loadavg()[0] ?? 0;
const server = await ServerProcess.ours('bench/servers/app.mjs', { AUDIT_LOG: 'off' });
const rows: string[][] = [];
try {
  await playRound(server, { connections, seconds });
  for (const pages of values.pages.split(',').map(Number)) {
    const ratios: number[] = [];
    const cpu: number[] = [];
    for (let pair = 0; pair < pairs; pair += 1) {
      const watchedFirst = pair % 2 === 0;
      const first = await (watchedFirst ? watched(pages) : playRound(server, { connections, seconds }));
      const second = await (watchedFirst ? playRound(server, { connections, seconds }) : watched(pages));
      const [open, without] = watchedFirst ? [first, second] : [second, first];
      ratios.push(open.perSecond / without.perSecond);
      cpu.push(open.cpuMicros / without.cpuMicros);
    }
    rows.push([
      String(pages),
      medianAndSpread(ratios, 3),
      medianAndSpread(cpu, 3),
      median(ratios).toFixed(3),
    ]);
  }
} finally {
  await server.kill();
}
console.log(`\n## Open pages: ${connections} connections, ${pairs} pairs of ${seconds} s each\n`);
console.log(`${machine(availableParallelism(), load)}\n`);
console.log(
  table(['pages', 'requests/s, with against without', 'CPU/request, with against without', 'median'], rows),
);

async function watched(pages: number): Promise<Round> {
  const streams = await Promise.all(Array.from({ length: pages }, () => watch()));
  const round = await playRound(server, { connections, seconds });
  for (const stream of streams) stream.destroy();
  return round;
}

/** A client that reads what it is sent, and does nothing with it: what a browser does with it is not measured. */
async function watch(): Promise<IncomingMessage> {
  const [answer] = (await once(get(`http://127.0.0.1:${server.opsPort}/events`), 'response')) as [
    IncomingMessage,
  ];
  answer.on('error', () => undefined);
  return answer.resume();
}
