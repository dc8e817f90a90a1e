import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { command, writeRun } from '../support/audit.ts';
import { tempDir } from '../support/service-process.ts';

/** A directory with a log of three runs, the first two rotated away, and the key it was sealed with. */
async function rotatedLog(t: Test): Promise<{ stateDir: string; file: string; keyFile: string }> {
  const stateDir = tempDir(t);
  const file = join(stateDir, 'audit.ndjson');
  const keyFile = join(stateDir, 'key');
  writeFileSync(keyFile, 'a key of more than sixteen bytes');
  const key = readFileSync(keyFile);
  await writeRun(file, [1, 2], { key });
  renameSync(file, `${file}.10`);
  await writeRun(file, [3], { key });
  renameSync(file, `${file}.9`);
  await writeRun(file, [1], { key });
  return { stateDir, file, keyFile };
}

t.test('a good log: exit 0, with what was walked and what cannot be seen', async (t) => {
  const { stateDir, file, keyFile } = await rotatedLog(t);
  const env = { AUDIT_KEY_FILE: keyFile };
  const text = await command(t, ['verify-audit'], { stateDir, env });
  t.equal(text.code, 0);
  const { hash } = JSON.parse(readFileSync(`${file}.head`, 'utf8'));
  t.match(text.lines, [
    /^OK: 10 records, 3 files, 3 chains$/,
    /^Sealed: 10 times, 20\S+Z to 20\S+Z$/,
    `Last seal: ${hash}`,
  ]);
  t.equal(text.lines.length, 3, 'nothing was left unchecked');

  const json = await command(t, ['verify-audit', '--json', '--key-file', keyFile], { stateDir });
  t.equal(json.code, 0);
  t.match(JSON.parse(json.lines.join('')), {
    files: 3,
    records: 10,
    seals: 10,
    chains: 3,
    head: hash,
    fromStart: true,
    unseen: [],
  });
});

t.test('a log that is wrong: exit 1, with the file, the line and how', async (t) => {
  const { stateDir, file, keyFile } = await rotatedLog(t);
  const env = { AUDIT_KEY_FILE: keyFile };
  const bytes = readFileSync(`${file}.9`, 'utf8');
  writeFileSync(`${file}.9`, bytes.replace('"path":"/orders/1"', '"path":"/orders/7"'));
  const text = await command(t, ['verify-audit'], { stateDir, env });
  t.equal(text.code, 1);
  t.equal(
    text.lines[0],
    `Broken at ${file}.9:4: this record was changed, or one is missing or was put in here`,
  );
  t.match(text.lines[1], /^OK up to there: 5 records, 2 chains$/);
  t.ok(text.lines.includes('Not checked: what stands behind that line'));
  t.notMatch(text.lines.join(), 'the last chain is not closed');
  const json = await command(t, ['verify-audit', '--json'], { stateDir, env });
  t.equal(json.code, 1);
  t.match(JSON.parse(json.lines.join('')).finding, { file: `${file}.9`, line: 4 });
});

t.test('the head beside the log, or one that was kept elsewhere, has to be in it', async (t) => {
  const stateDir = tempDir(t);
  const file = join(stateDir, 'audit.ndjson');
  await writeRun(file, [1]);
  const { length } = readFileSync(file);
  const { hash: kept } = JSON.parse(readFileSync(`${file}.head`, 'utf8'));
  await writeRun(file, [1]);
  t.match(await command(t, ['verify-audit', '--head', kept, file]), { code: 0 });
  truncateSync(file, length);
  const beside = await command(t, ['verify-audit', file]);
  t.equal(beside.code, 1);
  t.match(
    beside.lines[0],
    /audit\.ndjson:6: the seal that was kept \(\w{12}…\) is missing: the end was cut off/,
  );
  t.match(await command(t, ['verify-audit', '--head', kept, file]), { code: 0 });
  rmSync(`${file}.head`);
  const without = await command(t, ['verify-audit', file]);
  t.equal(without.code, 0);
  t.ok(without.lines.some((line) => line.startsWith('Not checked: without a head')));
});

t.test('older files that are gone are told, and --from-start makes that a failure', async (t) => {
  const { stateDir, file, keyFile } = await rotatedLog(t);
  const env = { AUDIT_KEY_FILE: keyFile };
  t.match(
    await command(t, ['verify-audit', '--from-start'], { stateDir, env }),
    { code: 0 },
    'it is all there',
  );
  rmSync(`${file}.10`);
  const gap = 'Not checked: the log begins before the first file given';
  const usual = await command(t, ['verify-audit'], { stateDir, env });
  t.equal(usual.code, 0, 'rotation removes old files');
  t.match(usual.lines[0], /^OK: 6 records, 2 files, 2 chains$/);
  t.ok(usual.lines.includes(gap));
  const strict = await command(t, ['verify-audit', '--from-start'], { stateDir, env });
  t.equal(strict.code, 1);
  t.equal(strict.lines[0], 'Incomplete: the first file does not begin the log');
  t.ok(strict.lines.includes(gap));
});

t.test('rotated files that were compressed are read, and named as they are', async (t) => {
  const { stateDir, file, keyFile } = await rotatedLog(t);
  const env = { AUDIT_KEY_FILE: keyFile, TMPDIR: stateDir };
  for (const number of [10, 9])
    writeFileSync(`${file}.${number}.gz`, gzipSync(readFileSync(`${file}.${number}`)));
  rmSync(`${file}.10`);
  // Number 9 is just being compressed: there are both, and the compressed one is not whole.
  truncateSync(`${file}.9.gz`, 20);
  const good = await command(t, ['verify-audit'], { stateDir, env });
  t.match(good, { code: 0, lines: [/^OK: 10 records, 3 files, 3 chains$/] });

  const bytes = readFileSync(`${file}.9`, 'utf8').replace('"path":"/orders/1"', '"path":"/orders/7"');
  writeFileSync(`${file}.9.gz`, gzipSync(bytes));
  rmSync(`${file}.9`);
  const changed = await command(t, ['verify-audit'], { stateDir, env });
  t.match(changed, { code: 1, lines: [`Broken at ${file}.9.gz:4: this record was changed`] });

  truncateSync(`${file}.9.gz`, 100);
  const torn = await command(t, ['verify-audit', `${file}.9.gz`], { stateDir, env });
  t.match(torn, { code: 2, lines: [/^The audit log could not be read: unexpected end of file$/] });
  const left = readdirSync(stateDir).filter((name) => name.startsWith('verify-audit-'));
  t.strictSame(left, [], 'what was unpacked is gone');
});

t.test('a log that was rotated away while nothing runs is still found, with its head', async (t) => {
  const { stateDir, file, keyFile } = await rotatedLog(t);
  const env = { AUDIT_KEY_FILE: keyFile };
  renameSync(file, `${file}-20260102`);
  rmSync(`${file}.9`);
  rmSync(`${file}.10`);
  const verdict = await command(t, ['verify-audit'], { stateDir, env });
  t.equal(verdict.code, 0);
  t.match(verdict.lines[0], /, 1 file, /);
  rmSync(`${file}-20260102`);
  t.match(await command(t, ['verify-audit'], { stateDir, env }), { code: 2 });
});

t.test('what cannot be read: exit 2 and one line that says what', async (t) => {
  const stateDir = tempDir(t);
  const file = join(stateDir, 'audit.ndjson');
  await writeRun(file, [1]);
  const gone = await command(t, ['verify-audit', join(stateDir, 'gone')], { stateDir });
  t.match(gone, { code: 2, lines: [/^The audit log could not be read: ENOENT.*gone/] });
  mkdirSync(join(stateDir, 'directory'));
  t.match(await command(t, ['verify-audit', join(stateDir, 'directory')], { stateDir }), { code: 2 });
  const noKey = await command(t, ['verify-audit', '--key-file', join(stateDir, 'none'), file], { stateDir });
  t.match(noKey, { code: 2, lines: [/^master-agent: ENOENT.*none/] });
  t.match(await command(t, ['verify-audit', '--nonsense'], { stateDir }), { code: 2 });
  const off = await command(t, ['verify-audit'], { stateDir, env: { AUDIT_LOG: 'off' } });
  t.match(off, { code: 2, lines: [/^master-agent: AUDIT_LOG is off: there is no log to verify/] });
  if (process.getuid?.() !== 0) {
    chmodSync(file, 0);
    t.match(await command(t, ['verify-audit', file], { stateDir }), { code: 2 });
  }
});

t.test('an empty file is a log of nothing', async (t) => {
  const stateDir = tempDir(t);
  writeFileSync(join(stateDir, 'audit.ndjson'), '');
  const empty = await command(t, ['verify-audit'], { stateDir });
  t.equal(empty.code, 0);
  t.equal(empty.lines[0], 'OK: 0 records, 1 file, 0 chains');
});

t.test('--help tells the exit codes', async (t) => {
  const help = await command(t, ['verify-audit', '--help']);
  t.equal(help.code, 0);
  t.ok(
    help.lines.includes(
      'exit: 0 valid, 1 broken, or with --from-start not from its start, 2 it could not be read',
    ),
  );
});
