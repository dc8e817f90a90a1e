import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { linesOf, verifyBytes, writeRun } from '../support/audit.ts';
import { tempDir } from '../support/service-process.ts';

/** Two runs in one log: open, records in several writes, a last seal; then the same again. */
async function smallLog(dir: string, name: string): Promise<Buffer> {
  const file = join(dir, name);
  await writeRun(file, [3, 1, 4], { label: name });
  await writeRun(file, [2, 2], { label: `${name}2` });
  return readFileSync(file);
}

const dir = tempDir(t);
const log = await smallLog(dir, 'log');
const lines = linesOf(log);
const other = linesOf(await smallLog(dir, 'other'));
const isSeal = lines.map((line) => line.includes('{"type":"seal"'));
const head: string = JSON.parse(String(lines.at(-1))).hash;

t.test('the log that the others are made from is good', async (t) => {
  const { finding, ...verdict } = verifyBytes(dir, log, { head });
  t.equal(finding, undefined);
  t.match(verdict, { files: 1, records: 14, seals: 9, chains: 2, bytes: log.length, head });
  t.equal(lines.length, 23);
});

for (const [name, change] of [
  ['one bit', (byte: number) => byte ^ 1],
  ['a line break', () => 0x0a],
  ['a quote', () => 0x22],
  ['a byte that is no UTF-8', () => 0xff],
] as const) {
  t.test(`each byte changed to ${name} is found at the line that holds it`, async (t) => {
    const wrong: unknown[] = [];
    let line = 1;
    for (let at = 0; at < log.length; at += 1) {
      const byte = log[at] as number;
      const changed = change(byte);
      if (changed !== byte) {
        const bytes = Buffer.from(log);
        bytes[at] = changed;
        const { finding } = verifyBytes(dir, bytes);
        if (finding?.line !== line) wrong.push({ at, line, finding });
      }
      if (byte === 0x0a) line += 1;
    }
    t.strictSame(wrong, []);
  });
}

t.test('each line dropped is found where it stood', async (t) => {
  for (const index of lines.keys()) {
    const bytes = Buffer.concat(lines.filter((_, other) => other !== index));
    const { finding } = verifyBytes(dir, bytes, { head });
    t.match(finding, { line: index + 1 }, `line ${index + 1}`);
  }
});

t.test('each pair of neighbours that have changed places is found', async (t) => {
  for (let index = 0; index + 1 < lines.length; index += 1) {
    const swapped = [...lines];
    [swapped[index], swapped[index + 1]] = [lines[index + 1] as Buffer, lines[index] as Buffer];
    const { finding } = verifyBytes(dir, Buffer.concat(swapped));
    t.match(finding, { line: index + 1 }, `lines ${index + 1} and ${index + 2}`);
  }
});

t.test('a log cut at each byte is torn there, or at a seal lacks the head that was kept', async (t) => {
  const wrong: unknown[] = [];
  let line = 1;
  for (let at = 0; at < log.length; at += 1) {
    const { finding } = verifyBytes(dir, log.subarray(0, at), { head });
    const before = log[at - 1];
    const atLine = at === 0 || before === 0x0a;
    const atSeal = at === 0 || (atLine && isSeal[line - 2]);
    // A write of which whole lines are left has no seal from its first line on.
    const unsealed = isSeal.lastIndexOf(true, line - 2) + 2;
    const want = atSeal || !atLine ? line : unsealed;
    if (finding?.line !== want) wrong.push({ at, want, finding });
    const without = verifyBytes(dir, log.subarray(0, at));
    if ((without.finding === undefined) !== atSeal) wrong.push({ at, finding: without.finding });
    if (log[at] === 0x0a) line += 1;
  }
  t.strictSame(wrong, []);
});

t.test('each line of another log is found at each place', async (t) => {
  const wrong: unknown[] = [];
  for (const [from, stray] of other.entries()) {
    for (let place = 0; place <= lines.length; place += 1) {
      const bytes = Buffer.concat([...lines.slice(0, place), stray, ...lines.slice(place)]);
      const { finding } = verifyBytes(dir, bytes, { head });
      // A seal behind one record, which it did not seal: either of the two may be what is wrong.
      const either = stray.includes('{"type":"seal"') ? [place, place + 1] : [place + 1];
      if (!either.includes(finding?.line ?? 0)) wrong.push({ from, place, finding });
    }
  }
  t.strictSame(wrong, []);
});

t.test('each line of the log itself is found at each other place', async (t) => {
  const wrong: unknown[] = [];
  for (const [from, copy] of lines.entries()) {
    for (let place = 0; place <= lines.length; place += 1) {
      const bytes = Buffer.concat([...lines.slice(0, place), copy, ...lines.slice(place)]);
      const { finding } = verifyBytes(dir, bytes, { head });
      // Two equal lines, one behind the other: nobody can tell which is the copy.
      const either = [place + 1];
      if (place === from) either.push(place + 2);
      if (place === from + 1 || copy.includes('{"type":"seal"')) either.push(place);
      if (!either.includes(finding?.line ?? 0)) wrong.push({ from, place, finding });
    }
  }
  t.strictSame(wrong, []);
});

t.test('a whole other log is found, and so is a write of it', async (t) => {
  const whole = verifyBytes(dir, Buffer.concat([...lines, ...other]), { head });
  t.match(whole.finding, { line: lines.length + 1 });
  const write = verifyBytes(dir, Buffer.concat([...lines, ...other.slice(0, 2)]), { head });
  t.match(write.finding, { line: lines.length + 1 });
  const later = verifyBytes(dir, Buffer.concat([...lines, ...other.slice(2, 6)]), { head });
  t.match(later.finding, { line: lines.length + 1 });
});

t.test('bytes added behind a hash are found', async (t) => {
  for (const [index, line] of lines.entries()) {
    if (!isSeal[index]) continue;
    const text = String(line);
    for (const added of [text.replace('"}\n', '"} \n'), text.replace('"}\n', '","note":"forged"}\n')]) {
      const bytes = Buffer.concat([...lines.slice(0, index), Buffer.from(added), ...lines.slice(index + 1)]);
      t.match(verifyBytes(dir, bytes).finding, { line: index + 1 });
    }
  }
});

t.test('a write that is dropped whole is found', async (t) => {
  let start = 0;
  for (const index of lines.keys()) {
    if (!isSeal[index]) continue;
    const bytes = Buffer.concat([...lines.slice(0, start), ...lines.slice(index + 1)]);
    const { finding } = verifyBytes(dir, bytes, { head });
    t.match(finding, { line: start + 1 }, `lines ${start + 1} to ${index + 1}`);
    start = index + 1;
  }
});
