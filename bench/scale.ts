/**
 * How the cost of a stop grows, ours beside bare node:http with `server.close`. Each measurement has a server of its
 * own; they take turns.
 *
 *   idle       so many kept-alive connections in another process, which is stopped (SIGSTOP) while it counts: the
 *              time from the signal to the exit is the server's alone. A third server ends at the signal without
 *              more ado: what that takes is the kernel's. Memory is the resident set, for each connection.
 *   in flight  so many requests in flight and one client in a closed loop: the time from the signal to the first sign
 *              that the server has locked, which is a 503 for ours and a closed or refused connection for the other.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Subject } from '../test/conformance/subject.ts';
import { machine, median, medianAndSpread, table } from '../test/support/figures.ts';
import { IdleCrowd } from '../test/support/idle-crowd.ts';
import type { RawClient } from '../test/support/raw-client.ts';
import { residentBytes } from '../test/support/resident.ts';
import { findPeers } from './peers/find.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    idle: { type: 'string', default: '10,100,1000,10000' },
    'in-flight': { type: 'string', default: '1,10,100,1000' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);

/** How long a server may take to leave, or to show that it has locked. */
const GIVE_UP_MS = 20_000;
/** The requests in flight last longer than what is measured. */
const SLOW_MS = 3_000;

interface Idle {
  readonly exitMs: number;
  readonly bytesEach: number;
}

const scratch = mkdtempSync(join(tmpdir(), 'scale-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(2));

const load = loadavg()[0] ?? 0;
const peers = findPeers(scratch);
const [ours = '', bare = ''] = ['ours', 'node-http-close'].map(
  (id) => peers.find((peer) => peer.id === id)?.command,
);
const exitAtOnce = `node "${fileURLToPath(new URL('servers/exit-at-once.mjs', import.meta.url))}"`;
const idle = await each(values.idle, [ours, bare, exitAtOnce], idleConnections);
const inFlight = await each(values['in-flight'], [ours, bare], lockLatency);
report();

/** What `measure` gives for each count and each command, round by round; the commands take turns in being first. */
async function each<T>(
  counts: string,
  commands: readonly string[],
  measure: (command: string, count: number) => Promise<T>,
): Promise<{ count: number; figures: T[][] }[]> {
  const rows = [];
  for (const count of counts.split(',').map(Number)) {
    const figures: T[][] = commands.map(() => []);
    for (let round = 0; round < rounds; round += 1) {
      for (let turn = 0; turn < commands.length; turn += 1) {
        const index = (round + turn) % commands.length;
        figures[index]?.push(await measure(commands[index] ?? '', count));
      }
    }
    rows.push({ count, figures });
  }
  return rows;
}

async function idleConnections(command: string, count: number): Promise<Idle> {
  const subject = await Subject.answering(command);
  let crowd: IdleCrowd | undefined;
  try {
    const before = residentBytes(subject.pid);
    crowd = await IdleCrowd.open(subject.port, count);
    const bytesEach = (residentBytes(subject.pid) - before) / count;
    crowd.freeze();
    subject.signal('SIGTERM');
    const exit = await subject.exit(GIVE_UP_MS);
    return { exitMs: (exit?.atMs ?? Number.NaN) - subject.signalledMs, bytesEach };
  } finally {
    crowd?.kill();
    await subject.dispose();
  }
}

async function lockLatency(command: string, count: number): Promise<number> {
  const subject = await Subject.answering(command);
  try {
    const slow = await subject.openMany(count);
    for (const wire of slow) wire.get(`/slow?ms=${SLOW_MS}`);
    // An idle connection, which servers close that refuse by closing.
    const [bystander, asker] = await subject.idle(2);
    await subject.settled();
    if (bystander === undefined || asker === undefined) throw new Error('no connection');
    const closed = once(bystander.socket, 'end').then(() => performance.now());
    const signAt = Promise.race([closed, firstRefusal(asker), delay(SLOW_MS, Number.NaN)]);
    await delay(50);
    subject.signal('SIGTERM');
    return (await signAt) - subject.signalledMs;
  } finally {
    await subject.dispose();
  }
}

/** Asks again and again, until the answer is no 200. @returns when that was */
async function firstRefusal(asker: RawClient): Promise<number> {
  for (;;) {
    if ((await asker.get('/').answer()).status !== 200) return performance.now();
  }
}

function report(): void {
  if (values.json) {
    console.log(JSON.stringify({ machine: machine(availableParallelism(), load), rounds, idle, inFlight }));
    return;
  }
  const kilobytes = (own: readonly Idle[]): number[] => own.map(({ bytesEach }) => bytesEach / 1024);
  const exits = (own: readonly Idle[]): string =>
    medianAndSpread(
      own.map(({ exitMs }) => exitMs),
      0,
    );
  console.log(`\n## How the cost of a stop grows: ${rounds} rounds\n`);
  console.log(`${machine(availableParallelism(), load)} Median (least to most).\n`);
  console.log(
    table(
      [
        'idle connections',
        'exit, ms',
        'bare: exit, ms',
        'exit at once, ms',
        'KB each',
        'bare: KB each',
        'of bare',
      ],
      idle.map(({ count, figures: [ours = [], bare = [], kernel = []] }) => [
        String(count),
        ...[exits(ours), exits(bare), exits(kernel)],
        medianAndSpread(kilobytes(ours), 1),
        medianAndSpread(kilobytes(bare), 1),
        (median(kilobytes(ours)) / median(kilobytes(bare))).toFixed(2),
      ]),
    ),
  );
  console.log('');
  console.log(
    table(
      ['requests in flight', 'first 503 after the signal, ms', 'bare: first closed connection, ms'],
      inFlight.map(({ count, figures: [ours = [], bare = []] }) => [
        String(count),
        medianAndSpread(ours, 1),
        medianAndSpread(bare, 1),
      ]),
    ),
  );
}
