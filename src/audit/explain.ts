import { checkSum, isSealed, MOST_SUMS, OPENS, type Seal } from './seal.ts';
import { linesOf, type Write } from './writes.ts';

/** The first line of a write that is wrong, and why. */
export interface Explanation {
  /** Counted from 1, within the write; for what is missing, the line it should stand before. */
  readonly line: number;
  readonly detail: string;
}

/**
 * Which line of a write that is not as it was sealed is the first that is wrong. The hash only tells that one is;
 * where the seal has no check sum for each record, it is one of all of them.
 * @param seal undefined when there is none, or none that can be read
 * @param before the number of the seal of its chain that was walked last, when one was
 */
export function explain(
  { bytes, sealAt }: Write,
  seal: Seal | undefined,
  before: number | undefined,
  key: Buffer | undefined,
): Explanation {
  const records = bytes.subarray(0, sealAt);
  const lines = linesOf(records);
  const atSeal = lines.length + 1;
  const noRecord = firstThatIsNoRecord(lines);
  // A torn write, or lines that were added later.
  if (sealAt === undefined && bytes.at(-1) !== 0x0a)
    return noRecord ?? { line: lines.length, detail: 'the log ends before the end of this line' };
  if (sealAt === undefined)
    return noRecord ?? { line: 1, detail: 'from here to the end no seal covers the lines' };
  if (seal === undefined || (seal.lines === undefined && seal.records <= MOST_SUMS))
    return noRecord ?? { line: atSeal, detail: 'this seal cannot be read' };
  if (seal.lines === undefined) {
    const detail = `the records from here to the seal ${lines.length} lines on are not as they were sealed, or with another key`;
    return noRecord ?? { line: 1, detail };
  }
  const sums = lines.map(checkSum).join('');
  const mended = bytes.toString('utf8', sealAt).replace(seal.lines, sums);
  if (sums === seal.lines || isSealed(Buffer.concat([records, Buffer.from(mended)]), seal, key))
    return { line: atSeal, detail: 'this seal was changed, or it was made with another key' };
  const differing = firstThatDiffers(lines, seal, before);
  return noRecord !== undefined && noRecord.line <= differing.line ? noRecord : differing;
}

/** Holds records against the check sums in their seal. */
function firstThatDiffers(lines: readonly Buffer[], seal: Seal, before: number | undefined): Explanation {
  const want: readonly string[] = seal.lines?.match(/.{8}/gs) ?? [];
  const got = lines.map(checkSum);
  const extra = got.length - want.length;
  const opens = lines[extra]?.indexOf(OPENS) === 0 || (extra === 0 && seal.seq === 1);
  const isNext = before === undefined ? opens : seal.seq === before + 1;
  if (!isNext && !got.some((sum) => want.includes(sum)))
    return { line: lines.length + 1, detail: 'this seal does not belong here' };
  if (!isNext && extra > 0 && got.slice(extra).join('') === seal.lines)
    return { line: extra + 1, detail: 'the seal that should stand before this line is missing' };
  const first = got.findIndex((sum, index) => sum !== want[index]);
  return first === -1
    ? { line: lines.length + 1, detail: 'the record that should stand before this line is missing' }
    : { line: first + 1, detail: 'this record was changed, or one is missing or was put in here' };
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
