/**
 * More requests than can be served, with MAX_IN_FLIGHT set: an open loop offers multiples of what a closed loop has
 * reached. Goodput is what was answered with 200. Afterwards, still under the load, the ops server is asked and
 * the service is told to stop. `--picture` draws the goodput and the latency: `pictures/overload-*.svg`.
 */
import { availableParallelism, loadavg } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { machine, table } from '../test/support/figures.ts';
import { LedgerClient } from '../test/support/ledger-client.ts';
import { ServerProcess } from '../test/support/server-process.ts';
import { draw } from './picture.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
    picture: { type: 'boolean', default: false },
  },
});
const ms = Number(values.seconds) * 1000;
const MULTIPLES = [0.5, 0.8, 1, 1.5, 2, 3];
/** Each admitted request takes so long and no CPU, so that the limit is what is in flight, and not this machine. */
const SERVICE_MS = 20;
const MAX_IN_FLIGHT = 20;
const CONNECTIONS = 200;
const PATH = `/slow/${SERVICE_MS}`;

interface Row {
  readonly multiple: number;
  readonly offered: number;
  readonly goodput: number;
  readonly refused: number;
  readonly lost: number;
  readonly p50: number;
  readonly p99: number;
}

const load = loadavg()[0] ?? 0;
const service = await ServerProcess.ours('bench/servers/app.mjs', {
  MAX_IN_FLIGHT: String(MAX_IN_FLIGHT),
});
await measure(undefined, 0, Math.min(ms, 1_000));
const peak = (await measure(undefined, 0, ms)).goodput;
const rows: Row[] = [];
for (const multiple of MULTIPLES) rows.push(await measure(peak * multiple, multiple, ms));

const client = LedgerClient.start({
  port: service.port,
  connections: CONNECTIONS,
  path: PATH,
  perSecond: peak * 3,
});
await delay(500);
const askedMs = performance.now();
const { status } = await fetch(`http://127.0.0.1:${service.opsPort}/readyz`);
const operatorMs = performance.now() - askedMs;
const signalMs = performance.now();
service.signal('SIGTERM');
const { code } = await service.exited;
await client.stop();
const stop = { operator: { status, ms: operatorMs }, exitCode: code, exitMs: service.leftMs - signalMs };

if (values.json) console.log(JSON.stringify({ node: process.version, load, peak, rows, stop }));
else {
  console.log(`\n## Overload: MAX_IN_FLIGHT=${MAX_IN_FLIGHT}, each request takes ${SERVICE_MS} ms\n`);
  console.log(`${machine(availableParallelism(), load)} Peak ${peak.toFixed(0)} a second.\n`);
  const header = [
    'offered / peak',
    'offered a second',
    'goodput / peak',
    'refused a second',
    'lost',
    'p50 ms',
    'p99 ms',
  ];
  console.log(
    table(
      header,
      rows.map(({ multiple, offered, goodput, refused, lost, p50, p99 }) => [
        ...[
          String(multiple),
          offered.toFixed(0),
          (goodput / peak).toFixed(2),
          refused.toFixed(0),
          String(lost),
        ],
        ...[p50.toFixed(1), p99.toFixed(1)],
      ]),
    ),
  );
  console.log(
    `\nAt three times the peak the ops server answered ${status} in ${operatorMs.toFixed(0)} ms, ` +
      `and a stop ended with ${code} after ${stop.exitMs.toFixed(0)} ms.`,
  );
}
if (values.picture) await picture();
process.exit(code === 0 ? 0 : 1);

/** @param perSecond undefined for a closed loop that keeps the limit full */
async function measure(perSecond: number | undefined, multiple: number, forMs: number): Promise<Row> {
  const client = LedgerClient.start({
    ...{ port: service.port, path: PATH },
    ...(perSecond === undefined ? { connections: MAX_IN_FLIGHT } : { connections: CONNECTIONS, perSecond }),
  });
  const startedMs = performance.now();
  await delay(forMs);
  const seconds = (performance.now() - startedMs) / 1000;
  const ledger = await client.stop();
  const good = ledger.answers(200);
  const times = good.map(({ sentMs, endedMs }) => (endedMs ?? sentMs) - sentMs).sort((a, b) => a - b);
  const at = (share: number): number => times[Math.floor(times.length * share)] ?? Number.NaN;
  return {
    multiple,
    offered: perSecond ?? good.length / seconds,
    goodput: good.length / seconds,
    refused: ledger.answers(503).length / seconds,
    lost: ledger.lost,
    p50: at(0.5),
    p99: at(0.99),
  };
}

async function picture(): Promise<void> {
  const x = {
    field: 'multiple',
    type: 'quantitative' as const,
    title: 'offered, in multiples of what can be served',
    axis: { values: MULTIPLES, format: '~g', labelOverlap: false, grid: false },
  };
  const line = { type: 'line' as const, point: true, strokeWidth: 2 };
  await draw('overload', (theme) => ({
    resolve: { legend: { color: 'independent' } },
    hconcat: [
      {
        width: 320,
        height: 160,
        title: 'Answered with 200, of the peak',
        data: { values: rows.map(({ multiple, goodput }) => ({ multiple, goodput: goodput / peak })) },
        mark: { ...line, color: theme.ours, point: { color: theme.ours } },
        encoding: {
          x,
          y: { field: 'goodput', type: 'quantitative', title: null, scale: { domain: [0, 1.2] } },
        },
      },
      {
        width: 320,
        height: 160,
        title: `Latency of these, ms (a request takes ${SERVICE_MS})`,
        data: {
          values: rows.flatMap(({ multiple, p50, p99 }) => [
            { multiple, ms: p50, what: 'median' },
            { multiple, ms: p99, what: '99 of 100' },
          ]),
        },
        mark: line,
        encoding: {
          x,
          y: { field: 'ms', type: 'quantitative', title: null, scale: { domainMin: 0 } },
          color: {
            field: 'what',
            type: 'nominal',
            title: null,
            legend: { orient: 'bottom' },
            scale: { domain: ['median', '99 of 100'], range: [theme.answered, theme.refused] },
          },
        },
      },
    ],
  }));
}
