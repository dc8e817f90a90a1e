import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { readHead } from '../../src/audit/head.ts';
import { verify } from '../../src/audit/verify.ts';
import { readRecords } from '../support/audit.ts';
import { GuardedProgram, PROGRAM } from '../support/guarded-program.ts';
import { LedgerClient } from '../support/ledger-client.ts';
import { POLL_MS, tempDir } from '../support/service-process.ts';

/** `KILLS=200` for the long run. */
const KILLS = Number(process.env.KILLS ?? 4);
const CONNECTIONS = 8;
/** The watcher kills 5 s after its SIGTERM. */
const GONE_MS = 30_000;

/** For the whole loop; each process that is started sets the limit of one. */
const LOOP_MS = 120_000 + KILLS * 10_000;
t.setTimeout(LOOP_MS);

t.test('kill -9 of the guard under load: the program, the clients and the audit log agree', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'state/audit.ndjson');
  // The program has forked a process that would outlive it.
  const command = ['sh', '-c', `sleep 1000 & exec "${process.execPath}" "${PROGRAM}" "$1"`, 'sh', '{socket}'];
  const options = { dir, command, env: { AUDIT_MODE: 'strict', WORKERS: '2' } };
  const answered: string[] = [];
  const lost: string[] = [];
  const groups: number[] = [];
  let killed = 0;
  const start = async (): Promise<GuardedProgram> => {
    const guarded = await GuardedProgram.running(t, options);
    t.setTimeout(LOOP_MS);
    const { finding } = verify([file], { head: readHead(file) });
    if (finding !== undefined) t.fail(`after the kill of ${killed}: ${JSON.stringify(finding)}`);
    return guarded;
  };
  for (let kill = 1; kill <= KILLS; kill += 1) {
    const guarded = await start();
    const { service } = guarded;
    const pids = await guarded.pids(2);
    for (const pid of pids)
      t.equal(members(pid).length, 3, 'the program, what it has forked, and the watcher');
    // Each request has a target of its own, over all starts.
    const targetOf = (number: number): string => `/n/${kill * 1_000_000 + number}`;
    const client = LedgerClient.start({
      port: service.port,
      connections: CONNECTIONS,
      each: (number) =>
        number % 2 === 0
          ? { path: targetOf(number) }
          : { method: 'POST', path: targetOf(number), body: 'order' },
    });
    await client.answered(200, 1 + Math.floor(Math.random() * 200));
    await delay(Math.random() * 20);
    service.signal('SIGKILL');
    await service.left;
    killed = service.pid;
    // The next start does not wait for them.
    groups.push(...pids);
    const ledger = await client.stop();
    t.strictSame([...ledger.statuses.keys()], [200]);
    answered.push(...ledger.answers(200).map(({ number }) => targetOf(number)));
    lost.push(
      ...ledger.entries.filter(({ lost }) => lost !== undefined).map(({ number }) => targetOf(number)),
    );
  }
  const last = await start();
  for (const group of groups) await groupGone(group);
  t.match(last.service.output, `(pid ${killed}, started `);
  t.match(last.service.output, 'ended without a shutdown');
  await last.service.stop();
  t.strictSame(await last.service.exited, { code: 0, signal: null });

  const seen = last.targets;
  t.ok(lost.length > 0, 'requests were in flight');
  t.strictSame(repeated(seen), [], 'none reached the program twice');
  t.strictSame(without(answered, seen), [], 'each that was answered with 200 had reached it');
  const recorded = readRecords(file, 'request').map(({ path }) => String(path));
  t.strictSame(repeated(recorded), [], 'none is on record twice');
  t.strictSame(without(answered, recorded), [], 'each that was answered is on record');
  t.strictSame(without(recorded, seen), [], 'none is on record that the program has not seen');
  t.strictSame(without(without(seen, recorded), lost), [], 'the record lacks only what clients saw lost');
  const verdict = verify([file], { head: readHead(file) });
  t.equal(verdict.finding, undefined);
  t.equal(verdict.chains, KILLS + 1);
  t.equal(readRecords(file, 'unclean_end').length, KILLS, 'each kill is on record');
  t.comment(`${KILLS} kills, ${answered.length} answered, ${lost.length} lost, ${seen.length} seen`);
});

/** What lives of a process group. The state and the group are fields 3 and 5 of /proc/PID/stat (proc(5)). */
function members(group: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      const [state = 'X', , of] = statOf(pid);
      return Number(of) === group && !'ZX'.includes(state);
    });
}

/** The fields from the third on; none when there is no such process any more. */
function statOf(pid: number): string[] {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return [];
  }
}

/** Resolves when nothing lives of the group: the system tells nobody. @throws Error when that takes too long */
async function groupGone(group: number): Promise<void> {
  const untilMs = performance.now() + GONE_MS;
  for (let left = members(group); left.length > 0; left = members(group)) {
    if (performance.now() > untilMs) throw new Error(`${left} of the group ${group} outlive the guard`);
    await delay(POLL_MS);
  }
}

function repeated(values: readonly string[]): string[] {
  const known = new Set<string>();
  return values.filter((value) => known.size === known.add(value).size);
}

function without(values: readonly string[], others: readonly string[]): string[] {
  const known = new Set(others);
  return values.filter((value) => !known.has(value));
}
