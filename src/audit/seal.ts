import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
import { crc32 } from 'node:zlib';

/*
 * The format. A write is some records, one JSON object a line, and a seal line behind them:
 *
 *   {"type":"request",…}
 *   {"type":"seal","chain":"…","seq":7,"time":"…","records":1,"lines":"5d41402a","previous":"…","hash":"…"}
 *
 * The hash runs over every byte of the write up to `,"hash":"`, so over the records, the number of the seal and the
 * hash of the one before it. `lines` holds a check sum for each record: it proves nothing, but says which is wrong.
 */

/** How a seal line begins. No record begins so, and no client's bytes begin a line: JSON escapes line breaks. */
export const SEAL_MARK = '{"type":"seal",';
/** How the first record of a chain begins, and the first of it in each file. */
export const OPENS = '{"type":"open"';
/** What ends the sealed bytes. */
export const HASH_MARK = ',"hash":"';
/** What stands behind the sealed bytes: the mark, 64 hexadecimal digits, and the end of the line. */
export const UNSEALED_BYTES = HASH_MARK.length + 64 + '"}\n'.length;
/** What the first seal of the first log follows. */
export const NOTHING = '0'.repeat(64);

export interface Seal {
  /** The writer: one for each process that writes, new at each start. */
  readonly chain: string;
  /** 1 for the first seal of the chain. */
  readonly seq: number;
  /** ISO 8601. */
  readonly time: string;
  readonly records: number;
  /** CRC-32 of each record's line without its line break, eight hexadecimal digits each. */
  readonly lines: string;
  /** The hash of the seal before: of this chain, or of the one it follows. */
  readonly previous: string;
  readonly hash: string;
  /** The writer has closed the log in order. */
  readonly final: boolean;
}

/** SHA-256, or with a key HMAC-SHA-256: then nobody without the key can seal what they have changed. */
export function sealHash(key: Buffer | undefined): Hash | Hmac {
  return key === undefined ? createHash('sha256') : createHmac('sha256', key);
}

/** Seals a batch of record lines (each without its line break) and returns all that is to be written. */
export function sealBatch(
  lines: readonly string[],
  place: Pick<Seal, 'chain' | 'seq' | 'previous' | 'final' | 'time'>,
  key: Buffer | undefined,
): { bytes: Buffer; hash: string } {
  const { chain, seq, previous, final, time } = place;
  const sums = lines.map(checkSum).join('');
  const head =
    `${SEAL_MARK}"chain":"${chain}","seq":${seq},"time":"${time}","records":${lines.length},` +
    `${final ? '"final":true,' : ''}"lines":"${sums}","previous":"${previous}"`;
  const room = '0'.repeat(64);
  const bytes = Buffer.from(
    `${lines.length === 0 ? '' : `${lines.join('\n')}\n`}${head}${HASH_MARK}${room}"}\n`,
  );
  const sealed = bytes.length - UNSEALED_BYTES;
  const hash = sealHash(key).update(bytes.subarray(0, sealed)).digest('hex');
  bytes.write(hash, sealed + HASH_MARK.length, 'latin1');
  return { bytes, hash };
}

export function checkSum(line: string | Buffer): string {
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
  const { chain, seq, time, records, lines, previous, hash, final } = value;
  if (typeof chain !== 'string' || typeof time !== 'string' || typeof lines !== 'string') return undefined;
  if (typeof previous !== 'string' || typeof hash !== 'string') return undefined;
  if (!isCount(seq) || !isCount(records) || lines.length !== records * 8) return undefined;
  // What stands behind the mark is not sealed, so there may be nothing but the hash.
  if (hash.length !== 64 || !line.endsWith(`${HASH_MARK}${hash}"}`)) return undefined;
  return { chain, seq, time, records, lines, previous, hash, final: final === true };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}
