import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import t from 'tap';
import type { AuditLog } from '../../src/audit/audit-log.ts';
import { readHead } from '../../src/audit/head.ts';
import { verify } from '../../src/audit/verify.ts';
import { openLog, readRecords } from '../support/audit.ts';
import { ROOT } from '../support/root.ts';
import { tempDir } from '../support/service-process.ts';

const WRITER = join(ROOT, 'test/fixtures/audit-writer.mjs');
const MAX_BYTES = 4_096;
/** A rotation comes at most once a second. */
const FILL_MS = 15_000;

/** The files of a log, the oldest first. */
function filesOf(file: string): string[] {
  const numbers = readdirSync(dirname(file)).flatMap((entry) => {
    const [, number] = /^audit\.ndjson\.(\d+)$/.exec(entry) ?? [];
    return number === undefined ? [] : [Number(number)];
  });
  return [...numbers.sort((one, other) => other - one).map((number) => `${file}.${number}`), file];
}

/** Records until it is done, each in a write of its own. */
async function fill(log: AuditLog, done: () => boolean): Promise<number> {
  const endMs = performance.now() + FILL_MS;
  let records = 0;
  for (; !done(); records += 1) {
    if (performance.now() > endMs) throw new Error(`after ${records} records it is not done`);
    log.record('request', { id: `r${records}`, path: `/${'x'.repeat(100)}` });
    t.ok(await log.kept());
  }
  return records;
}

t.test('a file that is large enough becomes .1, and the log is whole over all of them', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  const log = openLog(file, { maxBytes: MAX_BYTES });
  const records = await fill(log, () => filesOf(file).length === 4);
  await log.close();
  const files = filesOf(file);
  t.strictSame(
    files.map((name) => basename(name)),
    ['audit.ndjson.3', 'audit.ndjson.2', 'audit.ndjson.1', 'audit.ndjson'],
  );
  const verdict = verify(files, { head: readHead(file) });
  t.equal(verdict.finding, undefined);
  t.equal(verdict.chains, 1);
  const ids = files.flatMap((name) => readRecords(name, 'request').map(({ id }) => id));
  t.strictSame(
    ids,
    Array.from({ length: records }, (_, index) => `r${index}`),
    'each record once, in order',
  );
  for (const name of files.slice(0, -1)) t.ok(statSync(name).size >= MAX_BYTES);
});

t.test('only so many files are kept, also when there were more', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  const many = openLog(file, { maxBytes: MAX_BYTES });
  await fill(many, () => filesOf(file).length === 4);
  await many.close();
  const few = openLog(file, { maxBytes: MAX_BYTES, keep: 2 });
  await fill(few, () => filesOf(file).length === 3);
  await few.close();
  const verdict = verify(filesOf(file), { head: readHead(file) });
  t.equal(verdict.finding, undefined);
  t.ok(verdict.unseen.includes('the log begins before the first file given'));
});

t.test('a file that was compressed keeps its place in the order', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  writeFileSync(`${file}.1.gz`, 'the oldest');
  const log = openLog(file, { maxBytes: MAX_BYTES, keep: 2 });
  await fill(log, () => filesOf(file).length === 2);
  t.equal(readFileSync(`${file}.2.gz`, 'utf8'), 'the oldest');
  await fill(log, () => filesOf(file).length === 3);
  t.notOk(existsSync(`${file}.3.gz`), 'and goes when it is one too many');
  await log.close();
});

t.test('with several processes the owner alone rotates, and the others follow', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  const owner = openLog(file, { maxBytes: 16_384 });
  const writers = ['a', 'b'].map((label) =>
    spawn(process.execPath, [WRITER, file, label, '600'], { stdio: 'inherit' }),
  );
  t.teardown(() => writers.map((writer) => writer.kill('SIGKILL')));
  t.strictSame(await Promise.all(writers.map(async (writer) => (await once(writer, 'close'))[0])), [0, 0]);
  await owner.close();
  const files = filesOf(file);
  const verdict = verify(files, { head: readHead(file) });
  t.equal(verdict.finding, undefined);
  t.equal(verdict.chains, 3);
  const ids = new Set(files.flatMap((name) => readRecords(name, 'request').map(({ id }) => id)));
  t.equal(ids.size, 1_200);
});

t.test('a log that cannot be rotated goes on, and says so', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  const warnings: string[] = [];
  const log = openLog(file, { maxBytes: MAX_BYTES, keep: 1, warn: (message) => warnings.push(message) });
  // Nothing removes a directory that is where a file should be.
  mkdirSync(join(`${file}.1`, 'in-the-way'), { recursive: true });
  await fill(log, () => warnings.length > 0);
  t.match(warnings[0], /^The audit log could not be rotated, and grows on: /);
  t.ok(await log.kept());
  await log.close();
  t.equal(verify([file], { head: readHead(file) }).finding, undefined);
});
