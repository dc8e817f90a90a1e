import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { keepReloadOutcome } from '../../src/lifecycle/last-reload.ts';
import { ShutdownRecord, type ShutdownReport } from '../../src/lifecycle/last-shutdown.ts';
import { releaseLatch, setLatch } from '../../src/lifecycle/latch.ts';
import { makeDirectory, replaceFile, replaceFileNow } from '../../src/platform/atomic-file.ts';

const NOBODY = 65_534;
const LATCH = { time: 'now', by: 'the test', reason: 'a drill' };
const REPORT: ShutdownReport = {
  unclean: false,
  pid: process.pid,
  version: '0',
  reason: 'the test',
  started_at: '',
  stopped_at: '',
  duration_seconds: 0,
  in_flight_at_lock: 0,
  completed: 0,
  aborted: 0,
  cut: [],
  closed: 0,
  cut_holds: [],
  rejected: 0,
  exit_code: 0,
};

function tempDir(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'master-agent-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/**
 * A directory in which files can be made and renamed, but which cannot be opened, so it cannot be synced: whoever
 * succeeds in it has left that out. Root may open everything, so the test stops being root.
 */
async function inUnsyncable(
  t: Test,
  play: (dir: string) => Promise<void>,
  prepare?: (dir: string) => unknown,
): Promise<void> {
  const dir = tempDir(t);
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) chownSync(dir, NOBODY, NOBODY);
  if (isRoot) process.seteuid?.(NOBODY);
  try {
    await prepare?.(dir);
    chmodSync(dir, 0o300);
    await play(dir);
  } finally {
    chmodSync(dir, 0o700);
    if (isRoot) process.seteuid?.(0);
  }
}

t.test('a file is replaced whole, and no draft is left', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'state.json');
  for (const replace of [replaceFile, replaceFileNow]) {
    await replace(file, 'one\n');
    await replace(file, 'another\n');
    t.equal(readFileSync(file, 'utf8'), 'another\n');
    t.strictSame(readdirSync(dir), ['state.json']);
  }
});

t.test('many writers of one file do not mix, and each leaves a whole one', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'state.json');
  const texts = Array.from({ length: 20 }, (_, index) => `${index}`.repeat(50_000));
  await Promise.all(texts.map((text) => replaceFile(file, text)));
  t.ok(texts.includes(readFileSync(file, 'utf8')));
  t.strictSame(readdirSync(dir), ['state.json']);
});

t.test('a file that cannot be put in place leaves no draft', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'state.json');
  mkdirSync(file);
  await t.rejects(replaceFile(file, 'text'), { code: 'EISDIR' });
  t.throws(() => replaceFileNow(file, 'text'), { code: 'EISDIR' });
  t.strictSame(readdirSync(dir), ['state.json']);
  await t.rejects(replaceFile(join(dir, 'no', 'state.json'), 'text'), { code: 'ENOENT' });
});

t.test('the name is on disk, too: no writer succeeds when the directory cannot be synced', async (t) => {
  await inUnsyncable(t, async (dir) => {
    const file = join(dir, 'state.json');
    await t.rejects(replaceFile(file, 'text'), { code: 'EACCES' });
    t.throws(() => replaceFileNow(file, 'text'), { code: 'EACCES' });
    await t.rejects(setLatch(dir, LATCH), { code: 'EACCES' });
    await t.rejects(
      keepReloadOutcome(dir, {
        what: 'settings',
        outcome: 'done',
        reason: '',
        started_ms: 0,
        duration_ms: 0,
        pid: 1,
        generation: 1,
      }),
      { code: 'EACCES' },
    );
  });
  let record: ShutdownRecord | undefined;
  await inUnsyncable(
    t,
    async (dir) => {
      await t.rejects(record?.close(REPORT) ?? Promise.resolve(), { code: 'EACCES' }, 'last-shutdown.json');
      t.throws(() => readFileSync(join(dir, 'last-shutdown.json')), { code: 'ENOENT' });
    },
    async (dir) => {
      record = await ShutdownRecord.open(dir);
    },
  );
  await inUnsyncable(
    t,
    async (dir) => {
      await t.rejects(releaseLatch(dir), { code: 'EACCES' });
    },
    (dir) => setLatch(dir, LATCH),
  );
});

t.test('directories are made with those above them, and what cannot be one is refused', async (t) => {
  const dir = tempDir(t);
  await makeDirectory(join(dir, 'a/b/c'));
  await makeDirectory(join(dir, 'a/b/c'));
  await Promise.all([1, 2, 3].map(() => makeDirectory(join(dir, 'x/y/z'))));
  t.strictSame(readdirSync(join(dir, 'a/b')), ['c']);
  writeFileSync(join(dir, 'file'), '');
  await t.rejects(makeDirectory(join(dir, 'file')), { code: 'EEXIST' });
  await t.rejects(makeDirectory(join(dir, 'file/below')), { code: 'ENOTDIR' });
  // Node's own recursive mkdir never returns from this one.
  await t.rejects(makeDirectory('/proc/x/y'), { code: 'ENOENT' });
});
