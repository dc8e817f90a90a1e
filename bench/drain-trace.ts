/**
 * What DRAIN_TRACE costs: CPU of a request whose handler awaits nothing, and of some that do, with it and without it. Each
 * round has a service of its own for either; they take turns.
 */
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import autocannon from 'autocannon';
import { machine, median, medianAndSpread, table } from '../test/support/figures.ts';
import { ServerProcess } from '../test/support/server-process.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, requests: { type: 'string', default: '20000' } },
});
const requests = Number(values.requests);
const PATHS = ['/plain', '/awaits/1', '/awaits/5', '/awaits/20'];
const WARM_UP = 5_000;
const load = loadavg()[0] ?? 0;

/** Microseconds of CPU for a request, by path: off, on. */
const figures = PATHS.map(() => ({ off: [] as number[], on: [] as number[] }));
for (let round = 0; round < Number(values.rounds); round += 1) {
  for (const which of round % 2 === 0 ? (['off', 'on'] as const) : (['on', 'off'] as const)) {
    const server = await ServerProcess.ours('bench/servers/awaits-app.mjs', {
      DRAIN_TRACE: String(which === 'on'),
      AUDIT_LOG: 'off',
    });
    for (const [index, path] of PATHS.entries()) {
      await ask(server, path, WARM_UP);
      const before = server.cpuSeconds;
      await ask(server, path, requests);
      figures[index]?.[which].push(((server.cpuSeconds - before) / requests) * 1e6);
    }
    server.signal('SIGTERM');
    await server.exited;
  }
}

const rows = PATHS.map((path, index) => {
  const { off = [], on = [] } = figures[index] ?? {};
  const awaits = Number(path.split('/')[2] ?? 0) * 2;
  const more = median(on) - median(off);
  return [
    path,
    medianAndSpread(off, 1),
    medianAndSpread(on, 1),
    (median(on) / median(off)).toFixed(2),
    awaits === 0 ? '-' : (more / awaits).toFixed(1),
  ];
});
process.stdout.write(
  `\n## DRAIN_TRACE\n\nCPU of a request in µs, over ${values.rounds} rounds of ${requests}. ${machine(availableParallelism(), load)}\n\n` +
    `${table(['', 'off', 'on', 'on / off', 'more for each await'], rows)}\n`,
);

async function ask({ port }: ServerProcess, path: string, amount: number): Promise<void> {
  await autocannon({ url: `http://127.0.0.1:${port}${path}`, connections: 20, amount });
}
