/**
 * A stop with many streams open, half of them server-sent events and half WebSockets: each is told once, evenly over
 * DRAIN_SPREAD, and closes. Counted are those that were told in the words of their protocol, those that were cut, and how
 * long after the spread the last one was gone, and the process. Meanwhile a client asks again and again: how long its 503
 * takes shows whether the telling holds up the gate.
 *
 * Exits with 1 when a stream was not told, or was cut.
 */
import { availableParallelism, loadavg } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { machine, median, quantile, table } from '../test/support/figures.ts';
import { RawClient } from '../test/support/raw-client.ts';
import { ServerProcess } from '../test/support/server-process.ts';
import { type Ended, openStreams } from '../test/support/streams.ts';

const { values } = parseArgs({
  options: {
    each: { type: 'string', default: '2000' },
    spread: { type: 'string', default: '0,5' },
    workers: { type: 'string', default: '0,2' },
  },
});
const APP = 'test/fixtures/streams-app.mjs';
/** Between two requests of the client that is refused. */
const ASK_MS = 20;

interface Figures {
  readonly told: number;
  readonly cut: number;
  /** From the signal to the end of the last stream, and of the process. */
  readonly goneMs: number;
  readonly exitMs: number;
  /** Of those that were told in the first half of the spread, the share. */
  readonly firstHalf: number;
  readonly refusalsMs: readonly number[];
  readonly bytesEach: number;
  readonly code: number | null;
}

const load = loadavg()[0] ?? 0;
const each = Number(values.each);
const rows: string[][] = [];
let failed = false;
for (const workers of values.workers.split(',').map(Number)) {
  for (const spread of values.spread.split(',').map(Number)) {
    const figures = await run(workers, spread);
    failed ||= figures.told !== 2 * each || figures.cut !== 0 || figures.code !== 0;
    rows.push([
      `WORKERS=${workers}, DRAIN_SPREAD=${spread}`,
      `${figures.told} of ${2 * each}`,
      String(figures.cut),
      spread === 0 ? '-' : figures.firstHalf.toFixed(2),
      ((figures.goneMs - spread * 1_000) / 1_000).toFixed(2),
      ((figures.exitMs - spread * 1_000) / 1_000).toFixed(2),
      `${median(figures.refusalsMs).toFixed(0)}, ${quantile(figures.refusalsMs, 0.99).toFixed(0)}`,
      (figures.bytesEach / 1_024).toFixed(0),
    ]);
  }
}
const header = [
  '',
  'told',
  'cut',
  'in the first half',
  'gone, s after the spread',
  'exit, s after the spread',
];
process.stdout.write(
  `\n## Streams at a stop\n\n${each} streams of server-sent events and ${each} WebSockets. ${machine(availableParallelism(), load)}\n\n` +
    `${table([...header, '503 in ms: median, p99', 'KiB each'], rows)}\n`,
);
process.exitCode = failed ? 1 : 0;

async function run(workers: number, spread: number): Promise<Figures> {
  const server = await ServerProcess.ours(APP, { WORKERS: String(workers), DRAIN_SPREAD: String(spread) });
  const before = server.residentBytesOfAll;
  const { events, sockets } = await openStreams(server.port, each);
  const bytesEach = (server.residentBytesOfAll - before) / (2 * each);
  await server.statusWhen(({ in_flight }) => in_flight.count === 2 * each);
  // What the opening has left to do is no part of the stop.
  await delay(500);
  const signalledMs = performance.now();
  server.signal('SIGTERM');
  const refusalsMs: number[] = [];
  const asking = ask(server, refusalsMs);
  const [told, closed] = await Promise.all([
    Promise.all(events.map(({ ended }) => ended)),
    Promise.all(sockets.map(({ ended }) => ended)),
  ]);
  const { code } = await server.exited;
  await asking;
  const all: readonly Ended[] = [...told, ...closed];
  const half = signalledMs + (spread * 1_000) / 2;
  return {
    told:
      told.filter(({ text = '' }) => text.includes(': the service stops\nretry: ')).length +
      closed.filter(({ code }) => code === 1012).length,
    cut: server.lines.filter((line) => line.includes('Cut in-flight')).length,
    goneMs: all.reduce((latest, { atMs }) => Math.max(latest, atMs), 0) - signalledMs,
    exitMs: server.leftMs - signalledMs,
    firstHalf: all.filter(({ atMs }) => atMs < half).length / all.length,
    refusalsMs,
    bytesEach,
    code,
  };
}

/** Asks on a connection of its own until there is nobody left to answer, and notes how long each 503 took. */
async function ask(server: ServerProcess, refusalsMs: number[]): Promise<void> {
  for (;;) {
    const client = await new RawClient(server.port).connected();
    const atMs = performance.now();
    const outcome = client.isConnected ? await client.get('/').answer({ ms: 10_000 }) : undefined;
    client.destroy();
    if (outcome === undefined || !('status' in outcome)) return;
    if (outcome.status === 503) refusalsMs.push(performance.now() - atMs);
    await delay(ASK_MS);
  }
}
