import { appendFileSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { verify } from '../../src/audit/verify.ts';
import { openLog, readRecords, writeRun } from '../support/audit.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

function setAside(dir: string): string[] {
  return readdirSync(dir).filter((name) => name.includes('.torn-'));
}

t.test(
  'a log that ends anywhere in its last write is set right, and nothing of it is thrown away',
  async (t) => {
    const dir = tempDir(t);
    const whole = join(dir, 'whole.ndjson');
    const log = await writeRun(whole, [2, 3], { close: false });
    const bytes = readFileSync(whole);
    await log.close();
    const lastWrite = bytes.indexOf('"id":"a-1-0"');
    const begin = bytes.lastIndexOf('\n', lastWrite) + 1;
    for (let cut = begin + 1; cut < bytes.length; cut += 37) {
      const each = tempDir(t);
      const file = join(each, 'audit.ndjson');
      writeFileSync(file, bytes.subarray(0, cut));
      const next = openLog(file);
      t.match(next.recovery, { unclean: true, tornBytes: cut - begin, missing: undefined });
      const aside = join(each, setAside(each)[0] ?? '');
      t.equal(next.recovery.quarantine, aside);
      t.ok(readFileSync(aside).equals(bytes.subarray(begin, cut)), `cut at ${cut}`);
      t.match(readRecords(file, 'unclean_end'), [{ torn_bytes: cut - begin, aside, missing: null }]);
      await next.close();
      t.equal(verify([file]).finding, undefined);
    }
  },
);

t.test('a run that was killed between two writes leaves nothing torn, but it is on record', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  await writeRun(file, [2], { close: false });
  const next = openLog(file);
  t.match(next.recovery, { unclean: true, tornBytes: 0, quarantine: undefined });
  t.match(readRecords(file, 'unclean_end'), [{ torn_bytes: 0, aside: null, missing: null }]);
  await next.close();
  t.strictSame(setAside(dir), []);
  t.equal(verify([file]).finding, undefined);
});

t.test('a log whose very first write was torn is begun anew', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  for (const torn of ['{', '{"type":"open","time":"2026-01-01T00:00:00.000Z","rea']) {
    writeFileSync(file, torn);
    const log = openLog(file);
    t.equal(log.recovery.tornBytes, torn.length);
    await log.close();
    t.equal(verify([file]).finding, undefined);
  }
  t.equal(setAside(dir).length, 2);
});

t.test('garbage of any size behind the last seal is set aside, with seals that are none in it', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  await writeRun(file, [2]);
  const garbage = `{"type":"seal","chain":"x"}\n${'\0'.repeat(3 * 1024 * 1024)}\n{"type":"seal",`;
  appendFileSync(file, garbage);
  const log = openLog(file);
  t.equal(log.recovery.tornBytes, garbage.length);
  await log.close();
  t.equal(verify([file]).finding, undefined);
});

t.test('a file that is no audit log is never touched: the start refuses', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  for (const text of ['My notes.\n', '{"level":30,"msg":"another log"}\n', 'x'.repeat(5 * 1024 * 1024)]) {
    writeFileSync(file, text);
    const service = ServiceProcess.spawn(t, { stateDir: dir });
    t.strictSame(await service.exited, { code: 74, signal: null });
    t.match(service.output, `FATAL: AUDIT_LOG: want a log that can be written, got "${file}": `);
    t.match(service.output, 'is not an audit log: it holds no seal');
    t.equal(readFileSync(file, 'utf8'), text);
  }
  t.strictSame(setAside(dir), []);
});

t.test('an end that was cut off at a seal is noticed by the head that was kept', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  await writeRun(file, [1], { label: 'first' });
  const end = readFileSync(file).length;
  await writeRun(file, [1], { label: 'second' });
  const head = JSON.parse(readFileSync(`${file}.head`, 'utf8')).hash;
  truncateSync(file, end);
  const log = openLog(file);
  t.match(log.recovery, { unclean: false, missing: head });
  t.match(readRecords(file, 'unclean_end'), [{ torn_bytes: 0, missing: head }]);
  await log.close();
});

t.test('a head that is older than the end is none that is missing', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'audit.ndjson');
  await writeRun(file, [1]);
  await writeRun(file, [1, 1, 1], { close: false });
  const log = openLog(file);
  t.match(log.recovery, { unclean: true, missing: undefined });
  await log.close();
});
