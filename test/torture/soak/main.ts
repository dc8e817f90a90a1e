/** The long run: `npm run soak -- --help`. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { Status } from '../../../src/ops/status.ts';
import { compare, requestsIn } from '../../support/accounts.ts';
import { median, table } from '../../support/figures.ts';
import { LedgerClient } from '../../support/ledger-client.ts';
import { residentBytes } from '../../support/resident.ts';
import { ROOT } from '../../support/root.ts';
import { ServerProcess } from '../../support/server-process.ts';
import { makeCase } from '../fuzz/cases.ts';
import { play } from '../fuzz/play.ts';
import { Random } from '../fuzz/random.ts';

const HELP = `npm run soak -- [options]

Orders at a constant rate and clients that misbehave, on one service of 127.0.0.1 that is reloaded every minute; then the
same while it is stopped and started again and again, on the same port and the same state.
Compares memory, descriptors and delays of the last third with those of the first, in the long life and over the short
ones; verifies the audit log; and holds the clients' account of all orders against the service's and the application's.

  --minutes N   of the long life (default 30)
  --restarts N  after it (default 20)
  --workers N   under a supervisor: what grows is then looked for in all processes together (default 0)
  --seed N      of the clients that misbehave (default 1)
  --help        this

Exit: 0 nothing has grown, no account differs; 1 something has, or one does. An order that is lost while the service
goes is told, and counts when it was dispatched; in the long life every one counts.
`;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    restarts: { type: 'string', default: '20' },
    workers: { type: 'string', default: '0' },
    seed: { type: 'string', default: '1' },
    help: { type: 'boolean', default: false },
  },
});
const APP = 'bench/servers/orders-app.mjs';
/** Clients that misbehave order too, and get what they ask for. */
const FIRST_ORDER = 1_000_000;
const LOOK_MS = 1_000;
const RELOAD_MS = 60_000;
/** Of the last third over the first: a leak goes on growing, a heap that fills up before it is collected does not. */
const MOST_GROWTH = 1.5;
const MOST_GROWTH_MB = 64;
const MOST_GROWTH_FILES = 20;

interface Look {
  readonly rssMb: number;
  readonly descriptors: number;
  /** How late the event loop was in the last second, 99 of 100 times; what the ops server tells. */
  readonly loopMs: number;
  /** In the state directory. */
  readonly files: number;
}

if (values.help) process.stdout.write(HELP);
else process.exitCode = await soak();

async function soak(): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), 'master-agent-soak-'));
  const [auditLog, dispatched] = [join(dir, 'audit.ndjson'), join(dir, 'dispatched')];
  const env = {
    ...{ STATE_DIR: dir, AUDIT_LOG: auditLog, DISPATCHED: dispatched },
    ...{ LOG_LEVEL: 'info', WORKERS: values.workers, KEEP_ALIVE_TIMEOUT: '30' },
  };
  const random = new Random(Number(values.seed));
  let service = await ServerProcess.ours(APP, env);
  const { port } = service;
  const client = LedgerClient.start({
    ...{ port, connections: 5, perSecond: 50, timeoutMs: 30_000 },
    ...{ method: 'POST', path: (number) => `/orders/${FIRST_ORDER + number}` },
  });
  const long: Look[] = [];
  const forMs = Number(values.minutes) * 60_000;
  const reloadMs = Math.min(RELOAD_MS, forMs / 3);
  const startMs = performance.now();
  let reloads = 0;
  while (performance.now() - startMs < forMs) {
    await misbehave(random, port);
    long.push(await look(service, dir));
    if (performance.now() - startMs > (reloads + 1) * reloadMs) {
      service.signal('SIGHUP');
      reloads += 1;
    }
    await delay(LOOK_MS);
  }
  const lostLong = client.ledger.lost;

  const short: Look[] = [];
  const codes: (number | null)[] = [];
  for (let restarts = 0; restarts < Number(values.restarts); restarts += 1) {
    codes.push(await stopped(service));
    service = await ServerProcess.ours(APP, { ...env, PORT: String(port) });
    await Promise.all([misbehave(random, port), delay(LOOK_MS)]);
    short.push(await look(service, dir));
  }
  const ledger = await client.stop();
  codes.push(await stopped(service));

  const main = join(ROOT, 'dist/main.js');
  const audit = spawnSync(process.execPath, [main, 'verify-audit', auditLog]).status;
  const differences = compare(
    ledger,
    requestsIn(auditLog).filter(({ path }) => numberOf(path) >= 0),
    readFileSync(dispatched, 'utf8')
      .split('\n')
      .map((order) => Number(order) - FIRST_ORDER)
      .filter((number) => number >= 0),
    numberOf,
  );
  rmSync(dir, { recursive: true, force: true });

  console.log(`${reloads} reloads in the long life, ${short.length} restarts; medians:`);
  const lives = { 'long life': long, restarts: short };
  console.log(table(['', 'first third', 'last third'], Object.entries(lives).flatMap(rowsOf)));
  const { lost, ...dispatchedOnes } = differences;
  const differing = Object.values(dispatchedOnes).flat().length;
  const unclean = codes.filter((code) => code !== 0);
  console.log(
    `${ledger.sent} orders, ${lostLong} lost in the long life, ${lost.length - lostLong} on restarts; ` +
      `${differing} differences, ${unclean.length} unclean stops, verify-audit ${audit}`,
  );
  if (lost.length > 0) console.log(ledger.losses);
  if (differing > 0) console.log(dispatchedOnes);
  const grown = Object.values(lives).some(hasGrown);
  if (grown) console.log('something has grown');
  return grown || lostLong > 0 || differing > 0 || unclean.length > 0 || audit !== 0 ? 1 : 0;
}

/** Of the order that has this path; negative or NaN when it is none of the steady client's. */
function numberOf(path: string): number {
  return Number(path.split('/').at(-1)) - FIRST_ORDER;
}

async function misbehave(random: Random, port: number): Promise<void> {
  await Promise.all(Array.from({ length: 5 }, () => play(makeCase(random), port)));
}

async function stopped(service: ServerProcess): Promise<number | null> {
  service.signal('SIGTERM');
  return (await service.exited).code;
}

function thirdsOf(looks: readonly Look[]): Record<'first' | 'last', Look> {
  const third = Math.ceil(looks.length / 3);
  const medianOf = (part: readonly Look[]): Look => {
    const of = (key: keyof Look): number => (part.length === 0 ? 0 : median(part.map((one) => one[key])));
    return {
      rssMb: of('rssMb'),
      descriptors: of('descriptors'),
      loopMs: of('loopMs'),
      files: of('files'),
    };
  };
  return { first: medianOf(looks.slice(0, third)), last: medianOf(looks.slice(-third)) };
}

function rowsOf([name, looks]: readonly [string, readonly Look[]]): string[][] {
  const { first, last } = thirdsOf(looks);
  const keys = ['rssMb', 'descriptors', 'loopMs', 'files'] as const;
  return keys.map((key) => [`${name}: ${key}`, first[key].toFixed(1), last[key].toFixed(1)]);
}

function hasGrown(looks: readonly Look[]): boolean {
  const { first, last } = thirdsOf(looks);
  return (
    last.rssMb > first.rssMb * MOST_GROWTH + MOST_GROWTH_MB ||
    last.descriptors > first.descriptors + MOST_GROWTH_FILES ||
    last.files > first.files + MOST_GROWTH_FILES
  );
}

async function look({ pid, opsPort }: ServerProcess, dir: string): Promise<Look> {
  const status = (await (await fetch(`http://127.0.0.1:${opsPort}/status`)).json()) as Status;
  const pids = [pid, ...(status.workers ?? []).map((worker) => worker.pid)];
  const sum = (of: (pid: number) => number): number => pids.reduce((total, pid) => total + of(pid), 0);
  return {
    rssMb: sum((pid) => orGone(() => residentBytes(pid))) / 1024 / 1024,
    descriptors: sum((pid) => orGone(() => readdirSync(`/proc/${pid}/fd`).length)),
    loopMs: status.event_loop?.delay_p99_ms ?? 0,
    files: readdirSync(dir).length,
  };
}

/** 0 of a worker that has just gone. */
function orGone(look: () => number): number {
  try {
    return look();
  } catch {
    return 0;
  }
}
