import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { AuditLog } from '../../src/audit/audit-log.ts';
import { type Verdict, type VerifyOptions, verify } from '../../src/audit/verify.ts';
import { openLog } from '../support/audit.ts';
import { tempDir } from '../support/service-process.ts';

/** Some records and their seal, as one process has written them in one go. */
interface Write {
  readonly file: number;
  readonly chain: string;
  readonly seq: number;
  readonly text: string;
}

const KEY = Buffer.from('a key of more than sixteen bytes');

async function write(log: AuditLog, label: string, writes: number): Promise<void> {
  for (let index = 0; index < writes; index += 1) {
    log.record('request', { id: `${label}-${index}` });
    t.ok(await log.kept());
  }
}

/** Of a chain that its owner has noted as far as it goes, nothing is left to be said at a clean end. */
function writesOf(files: readonly string[]): Write[] {
  return files.flatMap((file, number) => {
    const writes: Write[] = [];
    let text = '';
    for (const line of readFileSync(file, 'utf8').trimEnd().split('\n')) {
      text += `${line}\n`;
      if (!line.startsWith('{"type":"seal"')) continue;
      const { chain, seq } = JSON.parse(line);
      writes.push({ file: number, chain, seq, text });
      text = '';
    }
    return writes;
  });
}

/** Verifies what is left of a log. */
function verifyWrites(
  t: Test,
  writes: readonly Write[],
  files: number,
  options: VerifyOptions = {},
): Verdict {
  const dir = tempDir(t);
  const names = Array.from({ length: files }, (_, number) => join(dir, `${number}.ndjson`));
  for (const [number, name] of names.entries()) {
    writeFileSync(
      name,
      writes
        .filter(({ file }) => file === number)
        .map(({ text }) => text)
        .join(''),
    );
  }
  return verify(names, { key: KEY, ...options });
}

/** An owner and two workers, a reload that brings two more, and a rotation between; oldest file first. */
async function twoGenerations(t: Test): Promise<{ files: string[]; owner: string; head: string }> {
  const file = join(tempDir(t), 'audit.ndjson');
  const owner = openLog(file, { key: KEY });
  const join2 = (): AuditLog[] => [1, 2].map(() => openLog(file, { key: KEY, joins: true }));
  const first = join2();
  for (const [index, log] of first.entries()) await write(log, `first${index}`, 4);
  renameSync(file, `${file}.1`);
  owner.reopen();
  await owner.kept();
  for (const log of first) log.reopen();
  const second = join2();
  for (const [index, log] of [...first, ...second].entries()) await write(log, `second${index}`, 3);
  for (const log of first) t.ok(await log.close());
  await write(owner, 'owner', 1);
  for (const log of second) t.ok(await log.close());
  const { chain } = owner.head;
  t.ok(await owner.close());
  return {
    files: [`${file}.1`, file],
    owner: chain,
    head: JSON.parse(readFileSync(`${file}.head`, 'utf8')).hash,
  };
}

t.test(
  'two workers and a reload: each chain dropped whole, and the last write of each, is found',
  async (t) => {
    const { files, owner, head } = await twoGenerations(t);
    const writes = writesOf(files);
    const chains = [...new Set(writes.map(({ chain }) => chain))];
    t.equal(chains.length, 5);
    t.strictSame(verify(files, { key: KEY, head }).finding, undefined);
    t.strictSame(verify(files, { key: KEY, head }).unseen, []);
    t.equal(verifyWrites(t, writes, 2, { head }).finding, undefined);
    for (const chain of chains) {
      const last = writes.findLast((each) => each.chain === chain);
      for (const [name, left] of [
        ['whole', writes.filter((each) => each.chain !== chain)],
        ['its last write', writes.filter((each) => each !== last)],
      ] as const) {
        const label = `${chain === owner ? 'the owner' : 'a worker'}, ${name}`;
        t.not(verifyWrites(t, left, 2, { head }).finding, undefined, `${label}, by the head`);
        const { finding, unseen } = verifyWrites(t, left, 2);
        if (chain !== owner) t.not(finding, undefined, label);
        else
          t.ok(
            unseen.some((what) => /not closed|begins before/.test(what)),
            `${label}: ${unseen.join('; ')}`,
          );
      }
    }
  },
);

t.test('each tail of a chain, and each single write, is found', async (t) => {
  const { files, owner, head } = await twoGenerations(t);
  const writes = writesOf(files);
  for (const one of writes) {
    const without = writes.filter((each) => each !== one);
    const { finding, unseen } = verifyWrites(t, without, 2, { head });
    // Without its very first write a log may as well go on from an older file.
    if (one === writes[0]) t.ok(unseen.includes('the log begins before the first file given'));
    else t.not(finding, undefined, `seal ${one.seq}`);
    if (one.chain === owner) continue;
    const cut = writes.filter(({ chain, seq }) => chain !== one.chain || seq < one.seq);
    t.not(verifyWrites(t, cut, 2).finding, undefined, `from seal ${one.seq} on`);
  }
});

t.test('when the oldest file is gone, too', async (t) => {
  const { files, owner } = await twoGenerations(t);
  const newest = files.slice(1);
  const writes = writesOf(newest);
  const whole = verify(newest, { key: KEY });
  t.strictSame(whole.finding, undefined);
  for (const chain of new Set(writes.map(({ chain }) => chain))) {
    const last = writes.findLast((each) => each.chain === chain);
    const dropped = verifyWrites(
      t,
      writes.filter((each) => each.chain !== chain),
      1,
    );
    const cut = verifyWrites(
      t,
      writes.filter((each) => each !== last),
      1,
    );
    if (chain === owner) {
      t.ok(dropped.unseen.some((what) => what.startsWith('no chain here notes the other writers')));
      t.ok(cut.unseen.some((what) => what.startsWith('the last chain is not closed')));
    } else {
      t.not(dropped.finding, undefined, 'whole');
      t.not(cut.finding, undefined, 'its last write');
    }
  }
});

t.test('a writer of another log cannot be brought in, with the oldest file or without it', async (t) => {
  const { files } = await twoGenerations(t);
  const other = await twoGenerations(t);
  const writes = writesOf(files);
  const strangers = writesOf(other.files).filter(({ chain }) => chain !== other.owner);
  for (const chain of new Set(strangers.map((each) => each.chain))) {
    const stranger = strangers.filter((each) => each.chain === chain && each.file === 1);
    const at = writes.findIndex(({ file }) => file === 1);
    for (const place of [at + 1, at + 4, writes.length - 1]) {
      const mixed = [...writes.slice(0, place), ...stranger, ...writes.slice(place)];
      t.not(verifyWrites(t, mixed, 2).finding, undefined, 'with all files');
      const newest = mixed.filter(({ file }) => file === 1).map((each) => ({ ...each, file: 0 }));
      t.not(verifyWrites(t, newest, 1).finding, undefined, 'with the newest alone');
    }
  }
  const owner = writesOf(other.files).filter(({ chain, file }) => chain === other.owner && file === 1);
  const mixed = [...writes, ...owner].filter(({ file }) => file === 1).map((each) => ({ ...each, file: 0 }));
  t.not(verifyWrites(t, mixed, 1).finding, undefined, 'its owner neither');
});

t.test('an owner and a worker that were killed: the next run notes how far they had come', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  const killed = openLog(file, { key: KEY });
  const worker = openLog(file, { key: KEY, joins: true });
  await write(worker, 'worker', 3);
  await write(killed, 'owner', 2);
  await write(worker, 'worker', 2);
  const unknown = verify([file], { key: KEY }).unseen;
  t.ok(unknown.some((what) => what.startsWith('the last chain is not closed')));
  t.ok(unknown.some((what) => what.startsWith(`chain ${worker.head.chain} is not closed`)));
  const next = openLog(file, { key: KEY });
  t.match(next.recovery, { unclean: true });
  t.ok(await next.close());
  const writes = writesOf([file]);
  t.equal(verifyWrites(t, writes, 1).finding, undefined);
  for (const { chain } of [killed.head, worker.head]) {
    const last = writes.findLast((each) => each.chain === chain);
    t.not(
      verifyWrites(
        t,
        writes.filter((each) => each !== last),
        1,
      ).finding,
      undefined,
    );
    t.not(
      verifyWrites(
        t,
        writes.filter((each) => each.chain !== chain),
        1,
      ).finding,
      undefined,
    );
  }
  for (const log of [killed, worker]) await log.close();
  t.ok(existsSync(file));
});

t.test('a last write that was changed and sealed anew is not the one that the owner has noted', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  const owner = openLog(file);
  const worker = openLog(file, { joins: true });
  await write(worker, 'worker', 2);
  const { chain } = worker.head;
  t.ok(await worker.close());
  t.ok(await owner.close());
  const writes = writesOf([file]);
  const last = writes.findLast((each) => each.chain === chain);
  const sealed = last?.text
    .slice(0, last.text.lastIndexOf(',"hash":"'))
    .replace(/"time":"\d+/, '"time":"1999');
  const hash = createHash('sha256').update(String(sealed)).digest('hex');
  const forged = writes.map((each) =>
    each === last ? { ...each, text: `${sealed},"hash":"${hash}"}\n` } : each,
  );
  t.equal(verifyWrites(t, writes, 1, { key: undefined }).finding, undefined);
  t.match(verifyWrites(t, forged, 1, { key: undefined }).finding?.detail, 'is not the one that was noted');
});

t.test('an owner that is killed behind a rotation has noted how far each writer had come', async (t) => {
  const file = join(tempDir(t), 'audit.ndjson');
  const killed = openLog(file, { key: KEY });
  const worker = openLog(file, { key: KEY, joins: true });
  await write(worker, 'worker', 3);
  renameSync(file, `${file}.1`);
  killed.reopen();
  t.ok(await killed.kept());
  const writes = writesOf([`${file}.1`, file]);
  const last = writes.findLast(({ chain }) => chain === worker.head.chain);
  const left = writes.filter((each) => each !== last);
  t.equal(verifyWrites(t, writes, 2).finding, undefined);
  t.match(verifyWrites(t, left, 2).finding?.detail, 'the owner of the log had noted it');
  for (const log of [killed, worker]) await log.close();
});
