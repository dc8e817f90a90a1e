import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
import { crc32 } from 'node:zlib';

/*
 * The format. A write is some records, one JSON object a line, and a seal line behind them:
 *
 *   {"type":"request",…}
 *   {"type":"seal","chain":"…","seq":7,"time":"…","records":1,"lines":"5d41402a","previous":"…","hash":"…"}
 *
 * The hash covers every byte of the write up to `,"hash":"`: the records, the number of the seal and the hash of the
 * one before it. `lines` holds a check sum for each record; it proves nothing, but says which one is wrong. Only a
 * write of few records has it: under load it would cost more than everything else that a record costs.
 *
 * Each process writes a chain of its own. One of them owns the log, the others join it. The owner reads what they
 * append, and its seals name the last seal that it has seen of each (`writers`), so no chain can lose its end, or go
 * missing whole, unseen. The owner's first seal in each file and its last one always have `writers`.
 */

const NEWLINE = 0x0a;
/** How a seal line begins. No record begins so, and no client's bytes begin a line: JSON escapes line breaks. */
export const SEAL_MARK = '{"type":"seal",';
const SEAL_LINE = `\n${SEAL_MARK}`;
/** How the first record of a chain begins, and the first of it in each file. */
export const OPENS = '{"type":"open"';
/** What ends the sealed bytes. */
export const HASH_MARK = ',"hash":"';
/** What stands behind the sealed bytes: the mark, 64 hexadecimal digits, and the end of the line. */
const UNSEALED_BYTES = HASH_MARK.length + 64 + '"}\n'.length;
/** A write of more records has no check sum for each. */
export const MOST_SUMS = 256;
/** What the first seal of the first log follows. */
export const NOTHING = '0'.repeat(64);

/** The last seal that the owner of a log has seen of another writer. */
export interface Writer {
  readonly chain: string;
  readonly seq: number;
  /** Its hash. */
  readonly seal: string;
  /** The writer has closed its chain. */
  readonly final?: true;
  /** It stands in a file before the one that holds this note. */
  readonly before?: true;
}

/** What a seal says of itself. */
export interface SealFields {
  /** The writer: one for each process that writes, new at each start. */
  readonly chain: string;
  /** 1 for the first seal of the chain. */
  readonly seq: number;
  /** ISO 8601. */
  readonly time: string;
  /** The hash of the seal before: of this chain, or of the one it follows. */
  readonly previous: string;
  /** The writer has closed the log in order. */
  readonly final: boolean;
  /** The other writers from which the owner has seen something new. */
  readonly writers?: readonly Writer[] | undefined;
}

export interface Seal extends SealFields {
  readonly records: number;
  /** CRC-32 of each record's line without its line break, eight hexadecimal digits each. */
  readonly lines: string | undefined;
  readonly hash: string;
}

/** SHA-256, or with a key HMAC-SHA-256: without the key, a changed log cannot be sealed again. */
export function sealHash(key: Buffer | undefined): Hash | Hmac {
  return key === undefined ? createHash('sha256') : createHmac('sha256', key);
}

/** Whether a write, its seal line with it, is as it was sealed. */
export function isSealed(write: Buffer, seal: Seal, key: Buffer | undefined): boolean {
  return sealHash(key).update(write.subarray(0, -UNSEALED_BYTES)).digest('hex') === seal.hash;
}

/** The seal line up to its hash. */
export function sealText(fields: SealFields, records: number, lines: string | undefined): string {
  const { chain, seq, time, previous, final, writers } = fields;
  return (
    `${SEAL_MARK}"chain":"${chain}","seq":${seq},"time":"${time}","records":${records},` +
    `${final ? '"final":true,' : ''}${lines === undefined ? '' : `"lines":"${lines}",`}` +
    `${writers === undefined ? '' : `"writers":${JSON.stringify(writers)},`}"previous":"${previous}"`
  );
}

export function checkSum(line: Buffer): string {
  return crc32(line).toString(16).padStart(8, '0');
}

/** Reads a seal line; undefined when it is none, or is damaged. */
export function parseSeal(line: string): Seal | undefined {
  if (!line.startsWith(SEAL_MARK)) return undefined;
  let value: Partial<Record<keyof Seal, unknown>>;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  const { chain, seq, time, records, lines, previous, hash, final, writers } = value;
  if (typeof chain !== 'string' || typeof time !== 'string') return undefined;
  if (typeof previous !== 'string' || typeof hash !== 'string') return undefined;
  if (!isCount(seq) || !isCount(records)) return undefined;
  if (lines !== undefined && (typeof lines !== 'string' || lines.length !== records * 8)) return undefined;
  if (writers !== undefined && !(Array.isArray(writers) && writers.every(isWriter))) return undefined;
  // What stands behind the mark is not sealed, so there may be nothing but the hash.
  if (hash.length !== 64 || !line.endsWith(`${HASH_MARK}${hash}"}`)) return undefined;
  return { chain, seq, time, records, lines, previous, hash, final: final === true, writers };
}

/** The seals whose lines stand whole in `bytes`, and where each line ends; a further one can begin at `next`. */
export function findSeals(bytes: Buffer): { found: { seal: Seal; end: number }[]; next: number } {
  const found: { seal: Seal; end: number }[] = [];
  for (let at = bytes.indexOf(SEAL_LINE); at !== -1; ) {
    const newline = bytes.indexOf(NEWLINE, at + 1);
    if (newline === -1) return { found, next: at };
    const seal = parseSeal(bytes.toString('utf8', at + 1, newline));
    if (seal !== undefined) found.push({ seal, end: newline + 1 });
    at = bytes.indexOf(SEAL_LINE, newline);
  }
  // The beginning of a seal line may be cut in two by the end of the bytes.
  return { found, next: Math.max(0, bytes.length - SEAL_LINE.length) };
}

function isWriter(value: unknown): value is Writer {
  if (typeof value !== 'object' || value === null || !('chain' in value && 'seq' in value && 'seal' in value))
    return false;
  return typeof value.chain === 'string' && isCount(value.seq) && typeof value.seal === 'string';
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}
