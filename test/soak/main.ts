/** The long run: `npm run soak -- --help`. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { median, table } from '../../bench/figures.ts';
import { LedgerClient } from '../../bench/ledger-client.ts';
import { residentBytes } from '../../bench/resident.ts';
import { ROOT, ServerProcess } from '../../bench/server-process.ts';
import type { Status } from '../../src/routes/status.ts';
import { makeCase } from '../fuzz/cases.ts';
import { play } from '../fuzz/play.ts';
import { Random } from '../fuzz/random.ts';

const HELP = `npm run soak -- [options]

Load, clients that misbehave and a reload every minute, on one service of 127.0.0.1; then a restart on the same state.
Compares memory, descriptors and answers of the last third with those of the first, and verifies the audit log.

  --minutes N   default 30
  --workers N   under a supervisor: what grows is then looked for in all processes together (default 0)
  --seed N      of the clients that misbehave (default 1)
  --help        this

Exit: 0 nothing has grown or was lost, 1 something has.
`;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    workers: { type: 'string', default: '0' },
    seed: { type: 'string', default: '1' },
    help: { type: 'boolean', default: false },
  },
});
const LOOK_MS = 1_000;
const RELOAD_MS = 60_000;
/** Of the last third over the first: a leak goes on growing, a heap that fills up before it is collected does not. */
const MOST_GROWTH = 1.5;
const MOST_GROWTH_MB = 64;

interface Look {
  readonly rssMb: number;
  readonly descriptors: number;
  /** How late the event loop was in the last second, 99 of 100 times; what the operator's door tells. */
  readonly loopMs: number;
}

if (values.help) process.stdout.write(HELP);
else process.exitCode = await soak(Number(values.minutes) * 60_000, new Random(Number(values.seed)));

async function soak(forMs: number, random: Random): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), 'master-agent-soak-'));
  const env = { STATE_DIR: dir, LOG_LEVEL: 'info', WORKERS: values.workers, KEEP_ALIVE_TIMEOUT: '5' };
  const service = await ServerProcess.ours('bench/servers/app.mjs', env);
  const client = LedgerClient.start({ port: service.port, connections: 5, perSecond: 50, timeoutMs: 30_000 });
  const looks: Look[] = [];
  const endMs = performance.now() + forMs;
  let reloadMs = performance.now() + Math.min(RELOAD_MS, forMs / 3);
  let reloads = 0;
  while (performance.now() < endMs) {
    await Promise.all(Array.from({ length: 5 }, () => play(makeCase(random), service.port)));
    looks.push(await look(service));
    if (performance.now() > reloadMs) {
      service.signal('SIGHUP');
      reloads += 1;
      reloadMs += Math.min(RELOAD_MS, forMs / 3);
    }
    await delay(LOOK_MS);
  }
  const ledger = await client.stop();
  service.signal('SIGTERM');
  const { code } = await service.exited;
  const again = await ServerProcess.ours('bench/servers/app.mjs', env);
  again.signal('SIGTERM');
  const second = await again.exited;
  const main = join(ROOT, 'dist/main.js');
  const audit = spawnSync(process.execPath, [main, 'verify-audit', join(dir, 'audit.ndjson')]).status;
  rmSync(dir, { recursive: true, force: true });

  const third = Math.ceil(looks.length / 3);
  const [first, last] = [looks.slice(0, third), looks.slice(-third)];
  const of = (part: readonly Look[], key: keyof Look): number => median(part.map((one) => one[key]));
  const keys = ['rssMb', 'descriptors', 'loopMs'] as const;
  console.log(
    table(
      ['median', 'first third', 'last third'],
      keys.map((key) => [key, of(first, key).toFixed(1), of(last, key).toFixed(1)]),
    ),
  );
  console.log(
    `${ledger.sent} requests, ${ledger.lost} lost, ${reloads} reloads, exit ${code} and ${second.code}, verify-audit ${audit}`,
  );
  const rssLimit = of(first, 'rssMb') * MOST_GROWTH + MOST_GROWTH_MB;
  const grown = of(last, 'rssMb') > rssLimit || of(last, 'descriptors') > of(first, 'descriptors') + 20;
  const broken = ledger.lost > 0 || code !== 0 || second.code !== 0 || audit !== 0;
  if (grown) console.log('something has grown');
  return grown || broken ? 1 : 0;
}

async function look({ pid, opsPort }: ServerProcess): Promise<Look> {
  const status = (await (await fetch(`http://127.0.0.1:${opsPort}/status`)).json()) as Status;
  const pids = [pid, ...(status.workers ?? []).map((worker) => worker.pid)];
  const sum = (of: (pid: number) => number): number => pids.reduce((total, pid) => total + of(pid), 0);
  return {
    rssMb: sum((pid) => orGone(() => residentBytes(pid))) / 1024 / 1024,
    descriptors: sum((pid) => orGone(() => readdirSync(`/proc/${pid}/fd`).length)),
    loopMs: status.event_loop?.delay_p99_ms ?? 0,
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
