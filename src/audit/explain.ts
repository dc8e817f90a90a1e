import { checkSum, HASH_MARK, MOST_SUMS, OPENS, parseSeal, sealHash } from './seal.ts';
import { linesOf } from './writes.ts';

/** The first line of a write that is wrong, and why. */
export interface Explanation {
  /** Counted from 1, within the write; for what is missing, the line it should stand before. */
  readonly line: number;
  readonly detail: string;
}

/**
 * Which line of a write that is not as it was sealed is the first that is wrong. The hash only tells that one is;
 * where the seal has no check sum for each record, it is one of all of them.
 * @param lines its records
 * @param before the number of the seal of its chain that was walked last, when one was
 */
export function explain(
  lines: readonly Buffer[],
  sealLine: string,
  before: number | undefined,
  key: Buffer | undefined,
): Explanation {
  const sealAt = lines.length + 1;
  const seal = parseSeal(sealLine);
  const noRecord = firstThatIsNoRecord(lines);
  const isDamaged = seal === undefined || (seal.lines === undefined && seal.records <= MOST_SUMS);
  if (isDamaged) return noRecord ?? { line: sealAt, detail: 'this seal cannot be read' };
  if (seal.lines === undefined) return noRecord ?? { line: 1, detail: range(sealAt) };

  const want: readonly string[] = seal.lines.match(/.{8}/gs) ?? [];
  const got = lines.map(checkSum);
  if (noRecord !== undefined && got.length !== want.length) return noRecord;
  const first = got.findIndex((sum, index) => sum !== want[index]);
  const mended = sealLine.replace(`"lines":"${seal.lines}"`, `"lines":"${got.join('')}"`);
  if (got.join('') === seal.lines || isSealedBy(lines, mended, seal.hash, key)) {
    return { line: sealAt, detail: 'this seal was changed, or it was made with another key' };
  }
  const extra = got.length - want.length;
  const opens = lines[extra]?.indexOf(OPENS) === 0 || (extra === 0 && seal.seq === 1);
  const isNext = before === undefined ? opens : seal.seq === before + 1;
  if (!isNext && !got.some((sum) => want.includes(sum))) {
    return { line: sealAt, detail: 'this seal does not belong here' };
  }
  if (extra > 0 && got.slice(extra).join('') === seal.lines) {
    return isNext
      ? { line: 1, detail: 'this line does not belong here: no seal covers it' }
      : { line: extra + 1, detail: 'the seal that should stand before this line is missing' };
  }
  return first === -1
    ? { line: sealAt, detail: 'the record that should stand before this line is missing' }
    : { line: first + 1, detail: 'this record was changed, or one is missing or was put in here' };
}

/** What stands at the end of a file behind its last seal: a write that was torn, or what somebody has added. */
export function explainUnsealed(rest: Buffer): Explanation {
  const lines = linesOf(rest);
  const noRecord = firstThatIsNoRecord(lines);
  if (noRecord !== undefined) return noRecord;
  if (rest.at(-1) !== 0x0a) return { line: lines.length, detail: 'the log ends before the end of this line' };
  return { line: 1, detail: 'from here to the end no seal covers the lines' };
}

/** A record is one JSON object with a type. Only a seal, which may be damaged, has a hash. */
function firstThatIsNoRecord(lines: readonly Buffer[]): Explanation | undefined {
  const index = lines.findIndex((line) => {
    try {
      const record = JSON.parse(String(line));
      return typeof record.type !== 'string' || record.hash !== undefined;
    } catch {
      return true;
    }
  });
  return index === -1 ? undefined : { line: index + 1, detail: 'this line is not whole, or is no record' };
}

function range(sealAt: number): string {
  return `the records from here to the seal ${sealAt - 1} lines on are not as they were sealed, or with another key`;
}

function isSealedBy(lines: readonly Buffer[], seal: string, want: string, key: Buffer | undefined): boolean {
  const hash = sealHash(key);
  for (const line of lines) hash.update(line).update('\n');
  return hash.update(seal.slice(0, seal.lastIndexOf(HASH_MARK))).digest('hex') === want;
}
