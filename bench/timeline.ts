/**
 * A stop as its clients see it, drawn: requests fall due at a constant rate (open loop) on kept-alive connections, some
 * are in flight when the signal comes, and each is counted where it fell due, by what became of it. Our service and one
 * peer: by default the library that does best in RESULTS.md, `--peer go` for what does best of all. Draws
 * `pictures/timeline-*.svg`.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Subject } from '../test/conformance/subject.ts';
import { machine, table } from '../test/support/figures.ts';
import type { Ledger } from '../test/support/ledger.ts';
import { LedgerClient } from '../test/support/ledger-client.ts';
import { findPeers } from './peers/find.ts';
import { draw } from './picture.ts';

const { values } = parseArgs({
  options: {
    peer: { type: 'string', default: 'stoppable' },
    json: { type: 'boolean', default: false },
  },
});

const PER_SECOND = 1_000;
const CONNECTIONS = 100;
/** One request in so many takes so long, so that something is in flight at the signal. */
const SLOW_EACH = 20;
const SLOW_MS = 300;
const BEFORE_MS = 500;
const AFTER_MS = 700;
const BIN_MS = 10;
/** What the picture shows of it. */
const FROM_MS = -200;
const TO_MS = 600;
const TICKS_MS = [-200, -100, 0, 100, 200, 300, 400, 500, 600];

const OUTCOMES = ['answered with 200', 'refused with 503', 'connection refused', 'lost'] as const;
type Outcome = (typeof OUTCOMES)[number];

interface Line {
  readonly server: string;
  /** When each request fell due, in ms after the signal, and what became of it. */
  readonly requests: readonly { readonly dueMs: number; readonly outcome: Outcome }[];
  /** The exit, in ms after the signal. */
  readonly exitMs: number;
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(2));
const scratch = mkdtempSync(join(tmpdir(), 'timeline-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

const load = loadavg()[0] ?? 0;
const peers = findPeers(scratch);
const lines: Line[] = [];
for (const id of ['ours', values.peer]) {
  const peer = peers.find((peer) => peer.id === id);
  if (peer?.command === undefined) {
    process.stderr.write(`timeline: --peer: want a server that can be run here, got "${id}"\n`);
    process.exit(2);
  }
  lines.push(await stop(id === 'ours' ? 'master-agent' : peer.name, peer.command));
}
if (values.json) console.log(JSON.stringify({ machine: machine(availableParallelism(), load), lines }));
else report();
await picture();

async function stop(server: string, command: string): Promise<Line> {
  const subject = await Subject.answering(command);
  try {
    const client = LedgerClient.start({
      port: subject.port,
      connections: CONNECTIONS,
      path: (number) => (number % SLOW_EACH === 0 ? `/slow?ms=${SLOW_MS}` : '/'),
      perSecond: PER_SECOND,
      dropRefused: true,
    });
    await delay(BEFORE_MS);
    subject.signal('SIGTERM');
    await delay(AFTER_MS);
    const exit = await subject.exit(AFTER_MS);
    const ledger = await client.stop();
    return {
      server,
      requests: outcomesOf(ledger, subject.signalledMs),
      exitMs: (exit?.atMs ?? Number.NaN) - subject.signalledMs,
    };
  } finally {
    await subject.dispose();
  }
}

function outcomesOf(ledger: Ledger, signalledMs: number): Line['requests'] {
  return [
    ...ledger.entries.map(({ dueMs, status }) => ({
      dueMs: dueMs - signalledMs,
      outcome: OUTCOMES[status === 200 ? 0 : status === 503 ? 1 : 3],
    })),
    ...ledger.refusals.map(({ dueMs }) => ({ dueMs: dueMs - signalledMs, outcome: OUTCOMES[2] })),
  ];
}

/** How many of each outcome, of the requests that fell due after the signal. */
function counts({ requests }: Line): number[] {
  return OUTCOMES.map(
    (wanted) => requests.filter(({ dueMs, outcome }) => dueMs >= 0 && outcome === wanted).length,
  );
}

function report(): void {
  console.log(`\n## A stop as a time line: ${PER_SECOND} requests a second, open loop\n`);
  console.log(`${machine(availableParallelism(), load)}\n`);
  console.log(
    table(
      ['due after the signal', ...OUTCOMES, 'exit after, ms'],
      lines.map((line) => [line.server, ...counts(line).map(String), line.exitMs.toFixed(0)]),
    ),
  );
}

async function picture(): Promise<void> {
  const bins = lines.flatMap(({ server, requests }) =>
    requests
      .filter(({ dueMs }) => dueMs >= FROM_MS && dueMs < TO_MS)
      .map(({ dueMs, outcome }) => ({
        server,
        outcome,
        rank: OUTCOMES.indexOf(outcome),
        from: Math.floor(dueMs / BIN_MS) * BIN_MS,
        to: Math.floor(dueMs / BIN_MS) * BIN_MS + BIN_MS,
      })),
  );
  const exits = lines.map(({ server, exitMs }) => ({ server, exitMs }));
  await draw('timeline', (theme) => ({
    vconcat: lines.map((line) => ({
      width: 720,
      height: 130,
      title: {
        text: line.server,
        subtitle: `due after the signal: ${counts(line)
          .map((count, index) => `${count} ${OUTCOMES[index]}`)
          .join(', ')}`,
      },
      layer: [
        {
          data: { values: bins.filter(({ server }) => server === line.server) },
          mark: { type: 'bar', binSpacing: 0.5 },
          encoding: {
            x: {
              field: 'from',
              bin: { binned: true, step: BIN_MS },
              title: line === lines.at(-1) ? 'milliseconds after SIGTERM' : null,
              scale: { domain: [FROM_MS, TO_MS] },
              axis: { grid: false, values: TICKS_MS },
            },
            x2: { field: 'to' },
            y: {
              aggregate: 'count',
              title: `requests per ${BIN_MS} ms`,
              axis: { tickCount: 3 },
              scale: { domain: [0, (1.2 * PER_SECOND * BIN_MS) / 1000] },
            },
            color: {
              field: 'outcome',
              type: 'nominal',
              title: null,
              scale: {
                domain: [...OUTCOMES],
                range: [theme.answered, theme.refused, theme.closed, theme.lost],
              },
            },
            order: { field: 'rank' },
          },
        },
        {
          data: { values: [{ at: 0 }] },
          mark: { type: 'rule', color: theme.text, strokeDash: [4, 3] },
          encoding: { x: { field: 'at', type: 'quantitative' } },
        },
        {
          data: { values: exits.filter(({ server }) => server === line.server) },
          mark: { type: 'rule', color: theme.text, strokeWidth: 2 },
          encoding: { x: { field: 'exitMs', type: 'quantitative' } },
        },
        {
          data: { values: exits.filter(({ server }) => server === line.server) },
          mark: { type: 'text', align: 'left', dx: 5, dy: -58, text: 'exit' },
          encoding: { x: { field: 'exitMs', type: 'quantitative' } },
        },
      ],
    })),
  }));
}
