import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { readHead } from '../../src/audit/head.ts';
import { verify } from '../../src/audit/verify.ts';
import { readRecords } from '../support/audit.ts';
import type { Ledger } from '../support/ledger.ts';
import { LedgerClient } from '../support/ledger-client.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const APP = join(ROOT, 'test/fixtures/numbers-app.mjs');
/** `KILLS=200` for the long run. */
const KILLS = Number(process.env.KILLS ?? 15);
const CONNECTIONS = 20;

/** For the whole loop; each process that is started sets the limit of one. */
const LOOP_MS = 120_000 + KILLS * 10_000;
t.setTimeout(LOOP_MS);

t.test('strict: kill -9 at any moment, and what a client was told is on record', async (t) => {
  const stateDir = tempDir(t);
  const file = join(stateDir, 'audit.ndjson');
  const options = { stateDir, args: [APP], env: { AUDIT_MODE: 'strict' } };
  let answered = 0;
  let torn = 0;
  for (let kill = 1; kill <= KILLS; kill += 1) {
    const service = await ServiceProcess.running(t, options);
    t.setTimeout(LOOP_MS);
    const { finding } = verify([file], { head: readHead(file) });
    if (finding !== undefined) t.fail(`start ${kill}: ${JSON.stringify(finding)}`);
    const client = load(service, kill);
    await client.answered(200, 1 + Math.floor(Math.random() * 300));
    await delay(Math.random() * 20);
    service.signal('SIGKILL');
    await service.exited;
    const told = answersIn(await client.stop(), kill);

    const { paths, torn: isTorn } = recorded(file);
    const missing = told.map(({ path }) => path).filter((path) => !paths.has(path));
    if (missing.length > 0) t.fail(`kill ${kill}: ${missing.length} answered and not on record: ${missing}`);
    answered += told.length;
    if (isTorn) torn += 1;
  }
  const last = await ServiceProcess.running(t, options);
  await last.stop();
  t.strictSame(await last.exited, { code: 0, signal: null });
  const verdict = verify([file], { head: readHead(file) });
  t.equal(verdict.finding, undefined);
  t.equal(verdict.chains, KILLS + 1);
  t.equal(readRecords(file, 'unclean_end').length, KILLS);
  t.comment(`${KILLS} kills, ${answered} requests answered with 200, ${torn} torn ends`);
});

t.test('batched: what kill -9 takes is of the last 100 ms', async (t) => {
  const stateDir = tempDir(t);
  const file = join(stateDir, 'audit.ndjson');
  for (let kill = 1; kill <= 3; kill += 1) {
    const service = await ServiceProcess.running(t, { stateDir, args: [APP] });
    const client = load(service, kill);
    await client.answered(200, 500);
    await delay(Math.random() * 100);
    const killedMs = performance.now();
    service.signal('SIGKILL');
    await service.exited;
    const told = answersIn(await client.stop(), kill);
    const { paths } = recorded(file);
    const missing = told.filter(({ path }) => !paths.has(path));
    const oldestMs = Math.min(killedMs, ...missing.map(({ atMs }) => atMs));
    // A batch waits for 100 ms; on a busy machine its timer and its write take their time, too.
    t.ok(killedMs - oldestMs < 100 + 400, `${missing.length} lost, of the last ${killedMs - oldestMs} ms`);
    t.ok(missing.length < told.length, 'some were written while they came');
  }
  const last = await ServiceProcess.running(t, { stateDir });
  await last.stop();
  await last.exited;
  t.equal(verify([file], { head: readHead(file) }).finding, undefined);
});

/** Each request has a path of its own, over all starts. */
function pathOf(kill: number, number: number): string {
  return `/n/${kill * 1_000_000 + number}`;
}

function load({ port }: ServiceProcess, kill: number): LedgerClient {
  return LedgerClient.start({ port, connections: CONNECTIONS, path: (number) => pathOf(kill, number) });
}

/** What was answered, and when. */
function answersIn(ledger: Ledger, kill: number): { path: string; atMs: number }[] {
  return ledger
    .answers(200)
    .map(({ number, endedMs = Number.NaN }) => ({ path: pathOf(kill, number), atMs: endedMs }));
}

interface Recorded {
  readonly paths: ReadonlySet<string>;
  /** The last line is not whole, or not JSON. */
  readonly torn: boolean;
}

/** What is on record right after a kill. Under no seal it is no record: the next start will set it aside. */
function recorded(file: string): Recorded {
  const lines = readFileSync(file, 'utf8').split('\n');
  const rest = lines.pop();
  const sealed = lines.findLastIndex((line) => line.startsWith('{"type":"seal",'));
  const paths = lines.slice(0, sealed).map((line) => String(JSON.parse(line).path));
  return { paths: new Set(paths), torn: rest !== '' || sealed !== lines.length - 1 };
}
