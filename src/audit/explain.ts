import { checkSum, HASH_MARK, OPENS, parseSeal, SEAL_MARK, type Seal, sealHash } from './seal.ts';
import { linesOf } from './writes.ts';

/** What is wrong with the first line that is. */
export type Damage = 'changed' | 'dropped' | 'reordered' | 'torn' | 'from another chain' | 'cut';

/** The first line of a write that is wrong, and how. */
export interface Explanation {
  readonly damage: Damage;
  /** Counted from 1, within the write; for what is missing, the line it should stand before. */
  readonly line: number;
  readonly detail: string;
}

/**
 * Where a seal stands among those before it. `next`: where it belongs. `ahead`: seals of its chain, or the one its
 * chain follows, are missing before it. `behind`: later seals of its chain stand before it. `foreign`: nothing here
 * leads to it.
 */
export type Place = 'next' | 'ahead' | 'behind' | 'foreign';

/** A write that is not as it was sealed. */
export interface Broken {
  /** The records. */
  readonly lines: readonly Buffer[];
  /** The line that begins like a seal. */
  readonly sealLine: string;
  readonly place: Place;
  /** Of a chain that stands before it in the log. */
  readonly known: boolean;
  readonly key: Buffer | undefined;
  /** What stands behind the write in the file. */
  readonly following: readonly Buffer[];
}

/** Which line of a write is wrong. The hash only tells that one is; the check sums in the seal tell which. */
export function explain(broken: Broken): Explanation {
  const { lines, sealLine, place } = broken;
  const lost = lines.findIndex(looksLikeSeal);
  // A seal whose beginning is damaged does not end its write. What it says of its records is still the best there is.
  if (lost !== -1) return explainBySeal(lines.slice(0, lost), String(lines[lost]), broken.following);
  const seal = parseSeal(sealLine);
  if (seal === undefined) return explainBySeal(lines, sealLine, broken.following);

  const got = lines.map(checkSum);
  const want = sumsIn(seal.lines);
  const first = firstDifference(got, want);
  const sealAt = lines.length + 1;
  if (first === undefined || resealed(seal, got, broken)) {
    const how =
      broken.key === undefined
        ? 'it was made with a key, and none was given'
        : 'it was made with another key';
    return changed(sealAt, `the records are as they were sealed, but their seal is not, or ${how}`);
  }
  const next = nextSeal(broken.following);
  if (!want.some((sum) => got.includes(sum))) {
    // The seal has nothing to do with what stands before it.
    const theNexts = got[0] !== undefined && sumsIn(next?.lines ?? '').includes(got[0]);
    if (place !== 'next' || (theNexts && !broken.known)) return misplaced(seal, sealAt, broken, next);
  }
  const extra = got.length - want.length;
  // The first seal that is there of a chain has the record that opens the chain: else there was one before it.
  const later = place === 'ahead' || (!broken.known && lines[extra]?.indexOf(OPENS) !== 0);
  if (later && extra >= 0 && got.slice(extra).join() === want.join()) {
    return dropped(extra + 1, 'the seal that should stand before this line is missing');
  }
  return compare(got, want, first, broken.following);
}

/** What stands at the end of a file behind its last seal: the rest of a write, or what somebody has added. */
export function explainUnsealed(rest: Buffer): Explanation {
  const lines = linesOf(rest);
  const lost = lines.findIndex(looksLikeSeal);
  const torn = rest.at(-1) !== 0x0a;
  if (lost !== -1 && (lost < lines.length - 1 || !torn)) {
    return explainBySeal(lines.slice(0, lost), String(lines[lost]), lines.slice(lost + 1));
  }
  if (!torn)
    return { damage: 'torn', line: 1, detail: `from here to the end ${count(lines.length)} no seal` };
  const before = lines.length === 1 ? '' : `; ${count(lines.length - 1)} before it no seal`;
  return { damage: 'torn', line: lines.length, detail: `the log ends in the middle of this line${before}` };
}

/** By a seal that is damaged itself: only what it says of its records is used, if that can still be read. */
function explainBySeal(
  lines: readonly Buffer[],
  sealLine: string,
  following: readonly Buffer[],
): Explanation {
  const sums = /"lines":"((?:[0-9a-f]{8})*)","previous":"/.exec(sealLine)?.[1];
  const got = lines.map(checkSum);
  const want = sums === undefined ? got : sumsIn(sums);
  const first = firstDifference(got, want) ?? lines.length;
  // What is left over before it was a part of it.
  return first < got.length && first < want.length
    ? compare(got, want, first, following)
    : changed(first + 1, 'this line is a seal that cannot be read');
}

/** From the first difference on: whether the line that is there, and the one that should be, stand somewhere else. */
function compare(
  got: readonly string[],
  want: readonly string[],
  first: number,
  following: readonly Buffer[],
): Explanation {
  const [here, expected] = [got[first], want[first]];
  const hereBelongs = here !== undefined && want.includes(here, first + 1);
  const expectedComes = expected !== undefined && got.includes(expected, first + 1);
  const line = first + 1;
  if (hereBelongs && expectedComes) return reordered(line, 'this line stood further down');
  if (here === undefined || hereBelongs) {
    return following.some((behind) => checkSum(behind) === expected)
      ? reordered(line, 'the record that should stand here stands behind the seal')
      : dropped(line, 'the record that should stand before this line is missing');
  }
  if (expected !== undefined && !expectedComes) return changed(line, 'this record is not as it was sealed');
  return sumsIn(nextSeal(following)?.lines ?? '').includes(here)
    ? reordered(line, 'this line stood further down, behind the seal')
    : { damage: 'from another chain', line, detail: 'this line was not sealed here' };
}

/** A seal between records that are not its own. */
function misplaced(seal: Seal, line: number, { known, place }: Broken, next: Seal | undefined): Explanation {
  if (!known) return { damage: 'from another chain', line, detail: 'this seal was not made for this log' };
  const before = next?.chain === seal.chain && next.seq < seal.seq;
  return place === 'ahead' && !before
    ? dropped(line, 'the seal that should stand before this line is missing')
    : reordered(line, `seal ${seal.seq} of its chain does not belong here`);
}

/** Whether a seal is right once its check sums are those of the records: then it is they that were changed. */
function resealed(seal: Seal, got: readonly string[], { lines, sealLine, key }: Broken): boolean {
  if (got.join('').length !== seal.lines.length) return false;
  const hash = sealHash(key);
  for (const line of lines) hash.update(line).update('\n');
  const mended = sealLine.replace(`"lines":"${seal.lines}"`, `"lines":"${got.join('')}"`);
  return hash.update(mended.slice(0, mended.lastIndexOf(HASH_MARK))).digest('hex') === seal.hash;
}

/** Undefined when there is none. */
function firstDifference(got: readonly string[], want: readonly string[]): number | undefined {
  const length = Math.max(got.length, want.length);
  for (let index = 0; index < length; index += 1) if (got[index] !== want[index]) return index;
  return undefined;
}

function nextSeal(lines: readonly Buffer[]): Seal | undefined {
  const line = lines.find((candidate) => candidate.indexOf(SEAL_MARK) === 0);
  return line === undefined ? undefined : parseSeal(line.toString());
}

function sumsIn(text: string): string[] {
  return text.match(/.{8}/gs) ?? [];
}

/** Whether a damaged line was a seal: of what only a seal has, most is still there. No record holds these, escaped. */
function looksLikeSeal(line: Buffer): boolean {
  const marks = [SEAL_MARK, ',"records":', ',"lines":"', ',"previous":"', HASH_MARK];
  return marks.filter((mark) => line.includes(mark)).length >= marks.length - 1;
}

function changed(line: number, detail: string): Explanation {
  return { damage: 'changed', line, detail };
}

function dropped(line: number, detail: string): Explanation {
  return { damage: 'dropped', line, detail };
}

function reordered(line: number, detail: string): Explanation {
  return { damage: 'reordered', line, detail };
}

function count(lines: number): string {
  return lines === 1 ? 'one line has' : `${lines} lines have`;
}
