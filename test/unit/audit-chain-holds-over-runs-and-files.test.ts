import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { verify } from '../../src/audit/verify.ts';
import { openLog, readRecords, writeRun } from '../support/audit.ts';
import { ROOT } from '../support/root.ts';
import { tempDir } from '../support/service-process.ts';

const WRITER = join(ROOT, 'test/fixtures/audit-writer.mjs');
const KEY = Buffer.from('a key of more than sixteen bytes');

function headOf(file: string): string {
  return JSON.parse(readFileSync(`${file}.head`, 'utf8')).hash;
}

t.test('one chain for each run, and each follows the last seal of the one before', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  for (let run = 0; run < 3; run += 1) await writeRun(file, [1, 5, 2], { label: `run${run}` });
  const verdict = verify([file], { head: headOf(file) });
  t.equal(verdict.finding, undefined);
  t.match(verdict, { records: 3 * 9, seals: 3 * 5, chains: 3, head: headOf(file) });
  t.equal(readRecords(file, 'unclean_end').length, 0);
  t.notOk(verdict.unseen.some((what) => /not closed|begins before/.test(what)));
});

t.test('a run that goes on and one that was killed are not closed, and it says so', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  const log = await writeRun(file, [2], { close: false });
  const open = verify([file]);
  t.equal(open.finding, undefined);
  t.ok(open.unseen.some((what) => what.startsWith('the last chain is not closed')));
  await log.close();
  t.notOk(verify([file]).unseen.some((what) => what.startsWith('the last chain is not closed')));
});

t.test('files that were rotated are one log in their order, and in no other', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  const [oldest, older] = [join(dir, 'audit.ndjson.2'), join(dir, 'audit.ndjson.1')];
  const log = openLog(file);
  log.record('request', { id: 'first' });
  await log.kept();
  for (const name of [oldest, older]) {
    renameSync(file, name);
    log.reopen();
    log.record('request', { id: `behind ${name}` });
    t.ok(await log.kept());
  }
  await log.close();

  const options = { head: headOf(file) };
  const verdict = verify([oldest, older, file], options);
  t.equal(verdict.finding, undefined);
  t.match(verdict, { files: 3, records: 6, chains: 1 });
  t.match(readRecords(older)[0], { type: 'open', reason: 'reopened' });
  const lastSeal = readFileSync(oldest, 'utf8').trimEnd().split('\n').at(-1) ?? '';
  t.equal(readRecords(older)[0]?.previous, JSON.parse(lastSeal).hash, 'the new file follows the old one');

  t.match(verify([older, oldest, file], options).finding, { file: oldest, line: 1 });
  t.match(verify([oldest, file], options).finding, { file, line: 1 });
  const newest = verify([file], options);
  t.equal(newest.finding, undefined);
  t.ok(newest.unseen.includes('the log begins before the first file given'));
  t.match(verify([oldest, older], options).finding, { file: older });
});

t.test('the newest file alone has the head that was kept when it began', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  await writeRun(file, [1]);
  const log = await writeRun(file, [1], { close: false });
  renameSync(file, `${file}.1`);
  log.reopen();
  await log.kept();
  t.equal(verify([file], { head: headOf(file) }).finding, undefined);
  await log.close();
});

t.test('a log that was moved away while nothing ran is followed by its head', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  await writeRun(file, [3]);
  renameSync(file, `${file}-20260101`);
  await writeRun(file, [3]);
  t.equal(verify([`${file}-20260101`, file], { head: headOf(file) }).finding, undefined);
  rmSync(`${file}.head`);
  renameSync(file, `${file}-20260102`);
  await writeRun(file, [3]);
  const { finding, unseen } = verify([`${file}-20260101`, `${file}-20260102`, file]);
  t.equal(finding, undefined);
  t.ok(
    unseen.some((what) => what.includes('does not say what it follows')),
    'without it nobody can tell',
  );
});

t.test('a run that was killed, and moved away before the next one, is followed all the same', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  // More writes than a follower may be behind; the second time after a rotation.
  const many = new Array(70).fill(1);
  await writeRun(file, many, { close: false });
  renameSync(file, `${file}.4`);
  const log = await writeRun(file, [1], { close: false });
  renameSync(file, `${file}.3`);
  log.reopen();
  for (const _ of many) {
    log.record('request', {});
    await log.kept();
  }
  renameSync(file, `${file}.2`);
  await writeRun(file, [1]);
  const files = [`${file}.4`, `${file}.3`, `${file}.2`, file];
  t.equal(verify(files, { head: headOf(file) }).finding, undefined);
});

t.test('several writers in one process, each with a chain of its own', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  const first = openLog(file);
  const others = [openLog(file, { joins: true }), openLog(file, { joins: true })];
  const all = [first, ...others];
  await Promise.all(
    all.map(async (log, writer) => {
      for (let index = 0; index < 200; index += 1) {
        log.record('request', { id: `${writer}-${index}` });
        if (index % 7 === writer) await log.kept();
      }
    }),
  );
  for (const log of others) t.ok(await log.close());
  t.ok(await first.close());
  const verdict = verify([file], { head: headOf(file) });
  t.equal(verdict.finding, undefined);
  t.match(verdict, { chains: 3, records: 603 });
  t.equal(readRecords(file, 'unclean_end').length, 0, 'who joins does not think that somebody has crashed');
});

t.test('several processes, over a rotation', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  const first = openLog(file);
  const writers = ['a', 'b', 'c'].map((label) =>
    spawn(process.execPath, [WRITER, file, label, '300'], { stdio: 'inherit' }),
  );
  const exits = writers.map(async (writer) => (await once(writer, 'close'))[0]);
  t.teardown(() => writers.map((writer) => writer.kill('SIGKILL')));
  const seen = (): number => readFileSync(file, 'utf8').split('"type":"request"').length;
  while (seen() < 30) await new Promise(setImmediate);
  renameSync(file, `${file}.1`);
  t.strictSame(await Promise.all(exits), [0, 0, 0]);
  first.reopen();
  await first.close();

  const verdict = verify([`${file}.1`, file]);
  t.equal(verdict.finding, undefined);
  t.equal(verdict.chains, 4);
  const ids = [...readRecords(`${file}.1`, 'request'), ...readRecords(file, 'request')].map(({ id }) => id);
  t.equal(ids.length, 900);
  t.equal(new Set(ids).size, 900);
  t.equal(verify([file]).finding, undefined, 'each writer says in the new file what it follows');
});

t.test('the key that it was sealed with, and no other', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  await writeRun(file, [1, 2], { key: KEY });
  await writeRun(file, [1], { key: KEY });
  const right = verify([file], { key: KEY, head: headOf(file) });
  t.equal(right.finding, undefined);
  t.strictSame(right.unseen, [], 'with a key and a head nothing is left that cannot be seen');
  for (const key of [undefined, Buffer.from('another key of sixteen bytes')]) {
    const { finding } = verify([file], { key });
    t.match(finding, { line: 2 });
    t.match(finding?.detail, /another key/);
  }
  const open = join(dir, 'open.ndjson');
  await writeRun(open, [1]);
  t.match(verify([open], { key: KEY }).finding, { line: 2 });
});

t.test('what was rewritten whole without the key is found', async (t) => {
  const dir = tempDir(t);
  await writeRun(join(dir, 'forged.ndjson'), [2]);
  const forged = readFileSync(join(dir, 'forged.ndjson'));
  writeFileSync(join(dir, 'audit.ndjson'), forged);
  t.match(verify([join(dir, 'audit.ndjson')], { key: KEY }).finding, { line: 2 });
});

t.test('an empty file is a log of nothing, unless a head was kept', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  writeFileSync(file, '');
  t.match(verify([file]), { records: 0, seals: 0, chains: 0, bytes: 0 });
  t.equal(verify([file]).finding, undefined);
  t.match(verify([file], { head: 'f'.repeat(64) }).finding, { line: 1 });
});
