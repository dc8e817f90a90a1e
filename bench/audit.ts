/**
 * What the audit log costs: requests per second of one JSON route with `batched` and `strict`, beside the same service
 * with AUDIT_LOG=off; what group commit reaches; what `strict` leaves to one client at a time of what the disk allows;
 * and how fast verify-audit walks a log.
 *
 * As in throughput.ts all servers are up at once, one is loaded at a time in short rounds whose order turns, and what
 * is compared is the ratio to `off` within the same round. How much `strict` costs is above all a matter of the disk.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Batch } from '../src/audit/batch.ts';
import { NOTHING } from '../src/audit/seal.ts';
import { verify } from '../src/audit/verify.ts';
import { machine, median, medianAndSpread, sum, table } from '../test/support/figures.ts';
import { ROOT } from '../test/support/root.ts';
import { ServerProcess } from '../test/support/server-process.ts';
import { playRound, type Round } from './round.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    seconds: { type: 'string', default: '0.5' },
    connections: { type: 'string', default: '64' },
    megabytes: { type: 'string', default: '300' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const connections = Number(values.connections);
const MODES = ['off', 'batched', 'strict'] as const;
type Mode = (typeof MODES)[number];

const load = loadavg()[0] ?? 0;
const dir = mkdtempSync(join(tmpdir(), 'master-agent-bench-audit-'));
const alone: { perSecond: number; off: number; disk: number }[] = [];
const results: Record<Mode, Round[]> = { off: [], batched: [], strict: [] };
try {
  const servers = await Promise.all(MODES.map(async (mode) => ({ mode, server: await start(mode) })));
  try {
    for (const { server } of servers) await playRound(server, { connections, seconds });
    const before = verify([logOf('strict')]);
    for (let round = 0; round < rounds; round += 1) {
      const order = round % 2 === 0 ? servers : [...servers].reverse();
      for (const { mode, server } of order)
        results[mode].push(await playRound(server, { connections, seconds }));
    }
    const after = verify([logOf('strict')]);
    const [off, , strict] = servers;
    for (let round = 0; round < rounds && off !== undefined && strict !== undefined; round += 1) {
      const { perSecond } = await playRound(strict.server, { connections: 1, seconds });
      const unaudited = await playRound(off.server, { connections: 1, seconds });
      alone.push({ perSecond, off: unaudited.perSecond, disk: syncsPerSecond() });
    }
    report(
      { seals: after.seals - before.seals, records: after.records - before.records },
      [2_000, 50].map((records) => ({ records, ...walk(records) })),
    );
  } finally {
    await Promise.all(servers.map(({ server }) => server.kill()));
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}

/** How often the disk takes as much as one record and its seal, and says that it is there, in a round. */
function syncsPerSecond(): number {
  const fd = openSync(join(dir, 'disk'), 'a');
  const bytes = Buffer.alloc(500, 0x20);
  const startedMs = performance.now();
  let syncs = 0;
  for (; performance.now() - startedMs < seconds * 1000; syncs += 1) {
    writeSync(fd, bytes);
    fdatasyncSync(fd);
  }
  closeSync(fd);
  return (syncs * 1000) / (performance.now() - startedMs);
}

function logOf(mode: Mode): string {
  return mode === 'off' ? 'off' : join(dir, `${mode}.ndjson`);
}

function start(mode: Mode): Promise<ServerProcess> {
  const env = mode === 'off' ? {} : { AUDIT_MODE: mode };
  return ServerProcess.ours('bench/servers/app.mjs', { AUDIT_LOG: logOf(mode), ...env });
}

/** Megabytes a second of `verify-audit`, the start of its process with it, over a log of writes of so many records. */
function walk(records: number): { megabytes: number; perSecond: number } {
  const file = join(dir, `${records}.ndjson`);
  const fd = openSync(file, 'w');
  const time = '2026-01-01T00:00:00.000Z';
  const batch = new Batch();
  let bytes = 0;
  for (let seq = 1, previous = NOTHING; bytes < Number(values.megabytes) * 1e6; seq += 1) {
    const lines = Array.from(
      { length: records },
      (_, index) =>
        `{"type":"request","time":"${time}","id":"k3j9d0-${seq}${index}","client":"127.0.0.1","method":"GET",` +
        `"path":"/orders/${index}","status":200,"duration_ms":1.2,"outcome":"completed"}`,
    );
    if (seq === 1) lines[0] = `{"type":"open","time":"${time}"}`;
    for (const line of lines) batch.add(line);
    const sealed = batch.seal({ chain: 'bench-1', seq, previous, final: false, time }, undefined);
    previous = sealed.hash;
    bytes += writeSync(fd, sealed.bytes);
    batch.clear();
  }
  closeSync(fd);
  const startedMs = performance.now();
  const { status } = spawnSync(process.execPath, [join(ROOT, 'dist/main.js'), 'verify-audit', file]);
  const elapsed = (performance.now() - startedMs) / 1000;
  if (status !== 0) throw new Error(`verify-audit ended with ${status}`);
  rmSync(file);
  return { megabytes: bytes / 1e6, perSecond: bytes / 1e6 / elapsed };
}

function report(
  strict: { seals: number; records: number },
  walks: readonly { records: number; megabytes: number; perSecond: number }[],
): void {
  const figures = MODES.map((mode) => {
    const own = results[mode];
    return {
      mode,
      perSecond: median(own.map(({ perSecond }) => perSecond)),
      ratios: own.map(({ perSecond }, round) => perSecond / (results.off[round]?.perSecond ?? Number.NaN)),
      cpuMicros: Math.min(...own.map(({ cpuMicros }) => cpuMicros)),
      latencies: own.map(({ latency }) => latency),
    };
  });
  // In strict mode each seal is one sync.
  const syncs = {
    perSecond: strict.seals / sum(results.strict.map((round) => round.seconds)),
    records: strict.records / strict.seals,
  };
  if (values.json) {
    console.log(
      JSON.stringify({ node: process.version, rounds, seconds, connections, load, figures, syncs, walks }),
    );
    return;
  }
  console.log(`\n## The audit log: ${connections} connections, ${rounds} rounds of ${seconds} s each\n`);
  console.log(`${machine(availableParallelism(), load)}\n`);
  console.log(
    table(
      ['AUDIT_MODE', 'requests/s', 'of off (spread)', 'CPU µs/request', 'median latency, ms'],
      figures.map(({ mode, perSecond, ratios, cpuMicros, latencies }) => [
        mode,
        perSecond.toFixed(0),
        medianAndSpread(ratios, 2),
        cpuMicros.toFixed(1),
        medianAndSpread(latencies, 0),
      ]),
    ),
  );
  console.log(
    `\nGroup commit in strict: ${syncs.perSecond.toFixed(0)} syncs/s, ${syncs.records.toFixed(1)} records a sync.`,
  );
  // An unaudited request and a sync, one after the other, are what no order of the two can undercut.
  const most = alone.map(({ off, disk }) => 1 / (1 / off + 1 / disk));
  const of = (yardstick: number[]): string =>
    medianAndSpread(
      alone.map(({ perSecond }, round) => perSecond / (yardstick[round] ?? Number.NaN)),
      2,
    );
  console.log(
    `\nOne client at a time in strict: ${median(alone.map(({ perSecond }) => perSecond)).toFixed(0)} requests/s, ${of(alone.map(({ disk }) => disk))} of the ` +
      `${median(alone.map(({ disk }) => disk)).toFixed(0)} syncs/s that the disk alone takes, and ${of(most)} of the ${median(most).toFixed(0)} ` +
      'requests/s that such a sync behind each unaudited request would leave.\n',
  );
  for (const { records, megabytes, perSecond } of walks) {
    console.log(
      `verify-audit: ${perSecond.toFixed(0)} MB/s over ${megabytes.toFixed(0)} MB in writes of ${records} records.`,
    );
  }
}
