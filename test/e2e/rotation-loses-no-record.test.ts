import { spawnSync } from 'node:child_process';
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readHead } from '../../src/audit/head.ts';
import { verify } from '../../src/audit/verify.ts';
import { readLines, readRecords } from '../support/audit.ts';
import type { Ledger } from '../support/ledger.ts';
import { LedgerClient } from '../support/ledger-client.ts';
import { need } from '../support/need.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

t.setTimeout(120_000);

const APP = join(ROOT, 'test/fixtures/numbers-app.mjs');
const CONFIGURATION = join(ROOT, 'deployment/logrotate.conf');

/** Each request has a path of its own; 0 is not among them. */
function load(service: ServiceProcess): LedgerClient {
  return LedgerClient.start({ port: service.port, connections: 10, path: pathOf });
}

function pathOf(number: number): string {
  return `/n/${number + 1}`;
}

function pathsIn(ledger: Ledger): string[] {
  return ledger.answers(200).map(({ number }) => pathOf(number));
}

/** Asks until the new file is there: a record has to come for the service to look for it. */
async function untilReopened(service: ServiceProcess, file: string): Promise<void> {
  const client = await RawClient.open(service.port);
  // An empty one is not begun yet, and logrotate would pass it over.
  while ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) === 0) await client.get('/n/0').response();
  client.destroy();
}

for (const mode of ['batched', 'strict'] as const) {
  t.test(`${mode}: renamed and signalled under load`, async (t) => {
    const service = await ServiceProcess.running(t, { args: [APP], env: { AUDIT_MODE: mode } });
    const file = join(service.stateDir, 'audit.ndjson');
    const client = load(service);
    const files: string[] = [];
    for (const number of [3, 2, 1]) {
      await client.answered(200, 200);
      renameSync(file, `${file}.${number}`);
      service.signal('SIGHUP');
      await untilReopened(service, file);
      files.push(`${file}.${number}`);
    }
    await client.answered(200, 200);
    const answered = pathsIn(await client.stop());
    await service.stop();
    t.strictSame(await service.exited, { code: 0, signal: null });

    files.push(file);
    const verdict = verify(files, { head: readHead(file) });
    t.equal(verdict.finding, undefined);
    t.equal(verdict.chains, 1);
    for (const [index, name] of files.entries()) {
      const [first] = readLines(name);
      const before = index === 0 ? undefined : readLines(files[index - 1] as string).at(-1);
      t.match(first, { type: 'open', reason: index === 0 ? 'start' : 'reopened' });
      if (before !== undefined)
        t.equal(first?.previous, before.hash, 'it follows the last seal of the old file');
    }
    const paths = files.flatMap((name) => readRecords(name, 'request').map(({ path }) => path));
    const counts = new Map<unknown, number>();
    for (const path of paths) counts.set(path, (counts.get(path) ?? 0) + 1);
    const wrong = answered.filter((path) => counts.get(path) !== 1);
    t.strictSame(wrong, [], 'each request is on record, once');
    t.ok(answered.length >= 800);
  });

  t.test(`${mode}: renamed without a signal`, async (t) => {
    const service = await ServiceProcess.running(t, { args: [APP], env: { AUDIT_MODE: mode } });
    const file = join(service.stateDir, 'audit.ndjson');
    const client = load(service);
    await client.answered(200, 100);
    renameSync(file, `${file}.1`);
    await untilReopened(service, file);
    await client.answered(200, 100);
    const answered = pathsIn(await client.stop());
    await service.stop();
    t.strictSame(await service.exited, { code: 0, signal: null });
    t.equal(verify([`${file}.1`, file], { head: readHead(file) }).finding, undefined);
    const paths = new Set([`${file}.1`, file].flatMap((name) => readRecords(name).map(({ path }) => path)));
    t.strictSame(
      answered.filter((path) => !paths.has(path)),
      [],
    );
  });

  t.test(`${mode}: deleted without a signal: the next record is in a new file`, async (t) => {
    const service = await ServiceProcess.running(t, { args: [APP], env: { AUDIT_MODE: mode } });
    const file = join(service.stateDir, 'audit.ndjson');
    rmSync(file);
    const client = await RawClient.open(service.port);
    t.equal((await client.get('/n/1').response()).status, 200);
    if (mode === 'strict') t.match(readRecords(file, 'request'), [{ path: '/n/1' }], 'before the answer');
    await service.stop();
    t.strictSame(await service.exited, { code: 0, signal: null });
    t.match(readRecords(file)[0], { type: 'open', reason: 'reopened' });
    t.match(readRecords(file, 'request'), [{ path: '/n/1' }]);
    const { finding, unseen } = verify([file], { head: readHead(file) });
    t.equal(finding, undefined);
    t.ok(unseen.includes('the log begins before the first file given'), 'what was deleted is not hidden');
  });
}

t.test('the logrotate configuration that ships', async (t) => {
  const dir = tempDir(t);
  need('logrotate');
  const pidFile = join(dir, 'pid');
  const stateDir = join(dir, 'state');
  const service = await ServiceProcess.running(t, { args: [APP], stateDir, env: { PID_FILE: pidFile } });
  const file = join(stateDir, 'audit.ndjson');
  const shipped = readFileSync(CONFIGURATION, 'utf8');
  const adapted = shipped
    .replace('/var/lib/master-agent/audit.ndjson', file)
    .replace(/systemctl kill .*/, `kill -USR2 "$(cat ${pidFile})"`);
  t.match(shipped, /^\s*systemctl kill .*--signal=USR2 master-agent\.service/m);
  const configuration = join(dir, 'logrotate.conf');
  writeFileSync(configuration, adapted, { mode: 0o644 });

  const client = load(service);
  for (let turn = 0; turn < 3; turn += 1) {
    await client.answered(200, 100);
    const rotate = spawnSync('logrotate', ['--force', '--state', join(dir, 'rotated'), configuration], {
      encoding: 'utf8',
    });
    t.equal(rotate.status, 0, rotate.stderr);
    await untilReopened(service, file);
  }
  const answered = pathsIn(await client.stop());
  await service.stop();
  t.strictSame(await service.exited, { code: 0, signal: null });
  const files = [`${file}.3`, `${file}.2`, `${file}.1`, file];
  t.equal(verify(files, { head: readHead(file) }).finding, undefined);
  const paths = new Set(files.flatMap((name) => readRecords(name, 'request').map(({ path }) => path)));
  t.strictSame(
    answered.filter((path) => !paths.has(path)),
    [],
  );
});
