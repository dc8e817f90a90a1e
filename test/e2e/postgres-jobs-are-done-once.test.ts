import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { requestsIn } from '../support/accounts.ts';
import { LedgerClient } from '../support/ledger-client.ts';
import { Postgres } from '../support/postgres.ts';
import type { ServerProcess } from '../support/server-process.ts';
import { serve } from '../support/transfer-rounds.ts';

const APP = 'examples/jobs/app.mjs';
const JOBS = 60;
const CONNECTIONS = 4;
const SHORT = 0.02;
/** So that most jobs still wait when enough were accepted. */
const MIDDLE = 0.3;
const LONG = 60;

const postgres = await Postgres.start();
t.teardown(() => postgres.end());

interface Job {
  readonly id: number;
  readonly key: string;
  readonly done: boolean;
  readonly runs: number;
  readonly results: number;
}

function jobs(): Promise<Job[]> {
  return postgres.query<Job>(
    `SELECT id, key, done IS NOT NULL AS done,
       (SELECT count(*)::integer FROM runs WHERE job = id) AS runs,
       (SELECT count(*)::integer FROM results WHERE job = id) AS results
     FROM jobs ORDER BY id`,
  );
}

/** Comes back when so many jobs are as `wanted` says: nobody is told of it but the table. */
async function untilJobs(wanted: (job: Job) => boolean, least: number): Promise<void> {
  await postgres.until(async () => (await jobs()).filter(wanted).length >= least, `${least} jobs as wanted`);
}

interface Stopped {
  readonly service: ServerProcess;
  readonly code: number | null;
  readonly before: readonly Job[];
  readonly after: readonly Job[];
}

/**
 * Gives a service jobs until enough were accepted, ends it while it does some, and lets another one do the rest. The
 * ledger, the audit log and the table have to agree on what was accepted, and every job has one result.
 * @param seconds how long the job of this number takes
 */
async function around(
  t: Test,
  name: string,
  seconds: (number: number) => number,
  end: (service: ServerProcess) => Promise<void>,
  env: Readonly<Record<string, string>> = {},
): Promise<Stopped> {
  const dir = mkdtempSync(join(tmpdir(), 'jobs-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  await postgres.query('DROP TABLE IF EXISTS jobs, runs, results');
  const auditLog = join(dir, 'audit.ndjson');
  const service = await serve(postgres, name, { AUDIT_LOG: auditLog, ...env }, APP);
  t.teardown(() => service.kill());
  const load = LedgerClient.start({
    port: service.port,
    connections: CONNECTIONS,
    each: (number) => ({
      method: 'POST',
      path: '/jobs',
      headers: { 'Content-Type': 'application/json', 'Idempotency-Key': `${name}:${number}` },
      body: JSON.stringify({ seconds: seconds(number) }),
    }),
  });
  t.teardown(() => load.stop());
  await load.answered(202, JOBS);
  await end(service);
  const { code } = await service.exited;
  const ledger = await load.stop();
  await postgres.quiet(name);

  const before = await jobs();
  const keys = new Set(before.map(({ key }) => key));
  const keyOf = ({ number }: { number: number }): string => `${name}:${number}`;
  t.strictSame(
    ledger
      .answers(202)
      .map(keyOf)
      .filter((key) => !keys.has(key)),
    [],
    'what was accepted is in the table',
  );
  t.strictSame(
    ledger
      .answers(503)
      .map(keyOf)
      .filter((key) => keys.has(key)),
    [],
    'what was refused is not',
  );
  const recorded = requestsIn(auditLog).filter(
    ({ status, outcome }) => status === 202 && outcome === 'completed',
  );
  const ids = new Set(recorded.map((record) => (record as { fields?: { job?: number } }).fields?.job));
  const accepted = new Set(ledger.answers(202).map(keyOf));
  t.strictSame(
    before.filter(({ key, id }) => accepted.has(key) && !ids.has(id)),
    [],
    'and on record',
  );

  // The jobs that were too long are short now.
  await postgres.query('UPDATE jobs SET seconds = 0');
  const next = await serve(postgres, `${name}-next`, {}, APP);
  t.teardown(() => next.kill());
  await untilJobs(({ done }) => done, before.length);
  next.signal('SIGTERM');
  t.equal((await next.exited).code, 0);
  const after = await jobs();
  t.strictSame(
    after.filter(({ results }) => results !== 1),
    [],
    'every job has one result',
  );
  return { service, code, before, after };
}

/** Those that were begun, and did not come to their end. */
function interrupted(all: readonly Job[]): readonly Job[] {
  return all.filter(({ done, runs }) => runs > 0 && !done);
}

/** Each job that was interrupted has run once more, and no other one has. */
function ranOnceMore(t: Test, { before, after }: Stopped): void {
  const twice = new Set(interrupted(before).map(({ id }) => id));
  t.strictSame(
    after.filter(({ id, runs }) => runs !== (twice.has(id) ? 2 : 1)),
    [],
    'what was interrupted has run once more, and nothing else',
  );
}

for (const workers of ['0', '2']) {
  t.test(`SIGTERM, WORKERS=${workers}: what runs is done, and nothing more is begun`, async (t) => {
    const end = async (service: ServerProcess): Promise<void> => service.signal('SIGTERM');
    const stopped = await around(t, `sigterm-${workers}`, () => MIDDLE, end, { WORKERS: workers });
    t.equal(stopped.code, 0);
    t.strictSame(interrupted(stopped.before), []);
    t.ok(
      stopped.before.some(({ done }) => !done),
      'the queue is left to the next',
    );
    ranOnceMore(t, stopped);
  });
}

t.test('the deadline cuts jobs by name; they are in the queue again, and run once more', async (t) => {
  const running = ({ done, runs }: Job): boolean => runs > 0 && !done;
  const end = async (service: ServerProcess): Promise<void> => {
    // All that the consumer does at a time.
    await untilJobs(running, 4);
    service.signal('SIGTERM');
  };
  const seconds = (number: number): number => (number % 5 === 4 ? LONG : SHORT);
  const stopped = await around(t, 'deadline', seconds, end, { SHUTDOWN_TIMEOUT: '0.5' });
  t.equal(stopped.code, 1);
  const cut = interrupted(stopped.before);
  t.ok(cut.length > 0);
  for (const { id } of cut) t.match(stopped.service.output, `Cut held work: \\"job ${id}\\"`);
  ranOnceMore(t, stopped);
});

t.test('kill -9: jobs that ran are in the queue again, and run once more', async (t) => {
  const end = async (service: ServerProcess): Promise<void> => {
    await untilJobs(({ done, runs }) => runs > 0 && !done, 4);
    service.signal('SIGKILL');
  };
  const stopped = await around(t, 'killed', (number) => (number % 5 === 4 ? LONG : SHORT), end);
  t.ok(interrupted(stopped.before).length >= 4);
  ranOnceMore(t, stopped);
});
