/**
 * What reloads do to clients, counted, with one worker and with two. Each scene has a service of its own, two loads in
 * a closed loop, one on kept-alive connections and one that opens a connection for each request, and so many reloads
 * one after the other. Memory is the resident set of the supervisor, which lives through all of them, read when the
 * workers of the generation before have left.
 *
 * Then the price of the supervisor: requests per second on kept-alive connections with WORKERS=2 and with WORKERS=0,
 * in rounds that alternate. With no more processors than this needs for itself, the load is what limits both.
 *
 * Exits with 1 when a request failed or a reload was refused. `--picture` draws the latency that clients see across
 * the first reloads with two workers: `pictures/reload-*.svg`.
 */
import { availableParallelism, loadavg } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { machine, median, medianAndSpread, table } from '../test/support/figures.ts';
import type { Ledger } from '../test/support/ledger.ts';
import { LedgerClient } from '../test/support/ledger-client.ts';
import { residentBytes } from '../test/support/resident.ts';
import { ServerProcess } from '../test/support/server-process.ts';
import { draw } from './picture.ts';
import { playRound } from './round.ts';

const { values } = parseArgs({
  options: {
    reloads: { type: 'string', default: '20' },
    rounds: { type: 'string', default: '10' },
    seconds: { type: 'string', default: '0.5' },
    json: { type: 'boolean', default: false },
    picture: { type: 'boolean', default: false },
  },
});
const reloads = Number(values.reloads);
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);

const APP = 'bench/servers/app.mjs';
const CONNECTIONS = 8;
/** Idle connections keep an old worker as long as this and a little more; under load there are none for long. */
const SETTINGS = { KEEP_ALIVE_TIMEOUT: '2' };
/** What the picture shows: so many reloads, with a little before and after, in steps of so much. */
const PICTURED_RELOADS = 3;
const BEFORE_PICTURE_MS = 1_000;
const BIN_MS = 50;

interface Scene {
  readonly workers: number;
  readonly kept: Account;
  readonly fresh: Account;
  readonly done: number;
  readonly refused: number;
  readonly reloadMs: readonly number[];
  /** After the first reload, and after the last. */
  readonly firstMegabytes: number;
  readonly lastMegabytes: number;
  readonly exitCode: number | null;
  /** For the picture. Times in ms since the load began. */
  readonly latencies: readonly { readonly atMs: number; readonly ms: number }[];
  readonly spans: readonly { readonly fromMs: number; readonly toMs: number }[];
}

interface Account {
  readonly sent: number;
  /** Lost, refused a connection, or answered with anything but 200. */
  readonly failed: number;
  readonly longestStallMs: number;
}

interface Outcome {
  readonly outcome: 'done' | 'refused';
  readonly duration_ms: number;
  readonly started_ms: number;
}

const load = loadavg()[0] ?? 0;
const scenes = [await scene(1), await scene(2)];
const throughput = rounds > 0 ? await compare() : { two: [], alone: [], ratios: [] };
report();
if (values.picture) await picture(scenes.at(-1));
process.exit(scenes.some(({ kept, fresh, refused }) => kept.failed + fresh.failed + refused > 0) ? 1 : 0);

async function scene(workers: number): Promise<Scene> {
  const service = await ServerProcess.ours(APP, { ...SETTINGS, WORKERS: String(workers) });
  const { port } = service;
  const beganMs = performance.now();
  const kept = LedgerClient.start({ port, connections: CONNECTIONS });
  const fresh = LedgerClient.start({ port, connections: CONNECTIONS, headers: { Connection: 'close' } });
  const outcomes: Outcome[] = [];
  const megabytes: number[] = [];
  for (let index = 0; index < reloads; index += 1) {
    outcomes.push(await reload(service, outcomes.at(-1)));
    megabytes.push(await settledMegabytes(service, workers));
    // So that the picture shows the time without a reload too.
    if (values.picture && index < PICTURED_RELOADS) await delay(BEFORE_PICTURE_MS);
  }
  const ledgers = [await kept.stop(), await fresh.stop()] as const;
  const accounts = { kept: accountOf(ledgers[0]), fresh: accountOf(ledgers[1]) };
  service.signal('SIGTERM');
  const { code } = await service.exited;
  const done = outcomes.filter(({ outcome }) => outcome === 'done');
  return {
    workers,
    ...accounts,
    done: done.length,
    refused: outcomes.length - done.length,
    reloadMs: done.map(({ duration_ms }) => duration_ms),
    firstMegabytes: megabytes[0] ?? 0,
    lastMegabytes: megabytes.at(-1) ?? 0,
    exitCode: code,
    latencies: ledgers.flatMap(({ entries }) =>
      entries.map(({ dueMs, endedMs = Number.NaN }) => ({ atMs: dueMs - beganMs, ms: endedMs - dueMs })),
    ),
    spans: done.map(({ started_ms, duration_ms }) => {
      const fromMs = started_ms - performance.timeOrigin - beganMs;
      return { fromMs, toMs: fromMs + duration_ms };
    }),
  };
}

function accountOf(ledger: Ledger): Account {
  const right = ledger.answers(200).length;
  const refused = [...ledger.refused.values()].reduce((sum, count) => sum + count, 0);
  const stalls = ledger.entries.map(({ dueMs, endedMs }) => (endedMs ?? Number.NaN) - dueMs);
  return {
    sent: ledger.sent,
    failed: ledger.sent - right + refused,
    longestStallMs: stalls.reduce((longest, stall) => Math.max(longest, stall), 0),
  };
}

/** Reloads, and comes back when it is over. */
async function reload(service: ServerProcess, before: Outcome | undefined): Promise<Outcome> {
  service.signal('SIGHUP');
  const { last_reload } = await service.statusWhen(
    ({ last_reload }) => last_reload !== null && last_reload.started_ms !== before?.started_ms,
  );
  return last_reload as Outcome;
}

/** The memory of the supervisor, when only the workers of one generation are left. */
async function settledMegabytes(service: ServerProcess, workers: number): Promise<number> {
  await service.statusWhen((status) => status.workers?.length === workers);
  return residentBytes(service.pid) / 1024 / 1024;
}

/** Requests per second with two workers, and alone, round by round. */
async function compare(): Promise<{ two: number[]; alone: number[]; ratios: number[] }> {
  const servers = await Promise.all(['2', '0'].map((count) => ServerProcess.ours(APP, { WORKERS: count })));
  const perSecond: number[][] = [[], []];
  try {
    for (const server of servers) await requestsPerSecond(server);
    for (let round = 0; round < rounds; round += 1) {
      for (const index of round % 2 === 0 ? [0, 1] : [1, 0]) {
        const server = servers[index];
        if (server !== undefined) perSecond[index]?.push(await requestsPerSecond(server));
      }
    }
  } finally {
    await Promise.all(servers.map((server) => server.kill()));
  }
  const [two = [], alone = []] = perSecond;
  return { two, alone, ratios: two.map((value, round) => value / (alone[round] ?? Number.NaN)) };
}

async function requestsPerSecond(server: ServerProcess): Promise<number> {
  return (await playRound(server, { connections: 50, seconds })).perSecond;
}

function report(): void {
  const { two, alone, ratios } = throughput;
  if (values.json) {
    const figures = scenes.map(({ latencies, spans, ...figures }) => figures);
    console.log(
      JSON.stringify({ machine: machine(availableParallelism(), load), scenes: figures, throughput }),
    );
    return;
  }
  const rows = scenes.map(
    ({ workers, kept, fresh, done, refused, reloadMs, firstMegabytes, lastMegabytes }) => [
      `WORKERS=${workers}`,
      `${done}${refused > 0 ? ` (${refused} refused)` : ''}`,
      `${kept.sent} + ${fresh.sent}`,
      `${kept.failed} + ${fresh.failed}`,
      `${kept.longestStallMs.toFixed(0)}, ${fresh.longestStallMs.toFixed(0)}`,
      medianAndSpread(reloadMs, 0),
      `${firstMegabytes.toFixed(0)} -> ${lastMegabytes.toFixed(0)}`,
    ],
  );
  console.log(`${machine(availableParallelism(), load)}\n`);
  console.log(
    `${reloads} reloads under ${CONNECTIONS} kept-alive connections and ${CONNECTIONS} that are opened anew each time:\n`,
  );
  console.log(
    table(['', 'reloads', 'requests', 'failed', 'longest stall, ms', 'reload, ms', 'supervisor, MB'], rows),
  );
  console.log(
    `\nWORKERS=2 against WORKERS=0: ${median(ratios).toFixed(2)} times the requests per second ` +
      `(${medianAndSpread(two, 0)} against ${medianAndSpread(alone, 0)}; ${rounds} rounds).`,
  );
}

/** The latency of what fell due in each short while, and the time in which reloads were under way. */
async function picture(scene: Scene | undefined): Promise<void> {
  if (scene === undefined) return;
  const spans = scene.spans.slice(0, PICTURED_RELOADS);
  const endMs = (spans.at(-1)?.toMs ?? 0) + BEFORE_PICTURE_MS;
  const startMs = (spans[0]?.fromMs ?? 0) - BEFORE_PICTURE_MS;
  const bins = new Map<number, number[]>();
  for (const { atMs, ms } of scene.latencies) {
    if (atMs < startMs || atMs >= endMs) continue;
    const bin = Math.floor(atMs / BIN_MS) * BIN_MS;
    const values = bins.get(bin);
    if (values === undefined) bins.set(bin, [ms]);
    else values.push(ms);
  }
  const rows = [...bins].flatMap(([bin, values]) => {
    const at = (bin + BIN_MS / 2 - startMs) / 1000;
    return [
      { at, latency: median(values), what: 'median' },
      { at, latency: Math.max(...values), what: 'slowest' },
    ];
  });
  const counted = scene.kept.sent + scene.fresh.sent;
  await draw('reload', (theme) => ({
    width: 720,
    height: 200,
    title: {
      text: 'Latency across reloads, as clients see it',
      subtitle:
        `WORKERS=2, ${2 * CONNECTIONS} clients in a closed loop, per ${BIN_MS} ms; shaded: new workers start, old ones retire. ` +
        `${scene.kept.failed + scene.fresh.failed} of ${counted} requests failed`,
    },
    layer: [
      {
        data: {
          values: spans.map(({ fromMs, toMs }) => ({
            from: (fromMs - startMs) / 1000,
            to: (toMs - startMs) / 1000,
          })),
        },
        mark: { type: 'rect', color: theme.faint, opacity: 0.6 },
        encoding: { x: { field: 'from', type: 'quantitative' }, x2: { field: 'to' } },
      },
      {
        data: { values: rows },
        mark: { type: 'line', strokeWidth: 1.5 },
        encoding: {
          x: { field: 'at', type: 'quantitative', title: 'seconds', axis: { grid: false } },
          y: {
            field: 'latency',
            type: 'quantitative',
            title: 'ms',
            scale: { type: 'log' },
            axis: { values: [0.1, 1, 10, 100, 1000] },
          },
          color: {
            field: 'what',
            type: 'nominal',
            title: null,
            scale: {
              domain: ['median', 'slowest'],
              range: [theme.answered, theme.refused],
            },
          },
          strokeDash: {
            field: 'what',
            type: 'nominal',
            title: null,
            scale: {
              domain: ['median', 'slowest'],
              range: [
                [1, 0],
                [4, 2],
              ],
            },
          },
        },
      },
    ],
  }));
}
