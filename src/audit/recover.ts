import {
  closeSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { hasCode } from '../error.ts';
import { syncDirectoryOfNow } from '../platform/atomic-file.ts';
import { readHead } from './head.ts';
import { HASH_MARK, OPENS, parseSeal, SEAL_MARK, type Seal } from './seal.ts';

/** What a log was found to end with. */
export interface Recovery {
  /** The hash of the last seal: in the file, or for a new file the one that was kept as its head. */
  readonly last: string | undefined;
  /** Whether the run before ended without closing its log. */
  readonly unclean: boolean;
  /** Bytes behind the last seal: a write that was torn. */
  readonly tornBytes: number;
  /** The file they were put into. */
  readonly quarantine: string | undefined;
  /** The seal that was kept as the head, when the log lacks it: its end was cut off. */
  readonly missing: string | undefined;
  /** The ends of chains, which no seal of the run before may have noted. */
  readonly ends: readonly Seal[];
}

/** An end that was not in order, as it is told on record and to operators. */
export interface UncleanAudit {
  readonly torn_bytes: number;
  readonly aside: string | null;
  readonly missing: string | null;
}

export function uncleanEnd({ unclean, tornBytes, quarantine, missing }: Recovery): UncleanAudit | undefined {
  if (!unclean && missing === undefined) return undefined;
  return { torn_bytes: tornBytes, aside: quarantine ?? null, missing: missing ?? null };
}

const CHUNK_BYTES = 1024 * 1024;
/** How far back the ends of chains are looked for: more than is written between two notes of them. */
const MOST_LOOKED_BYTES = 64 * CHUNK_BYTES;
const NEWLINE = 0x0a;

/**
 * Finds the end of a log before anything is added to it. What stands behind the last seal was torn by a crash: it
 * is copied to a file beside the log, then taken off the log. Only for a log that nobody is writing.
 * @throws the system's error
 */
export function recover(file: string): Recovery {
  const head = readHead(file);
  let fd: number;
  try {
    fd = openSync(file, 'r+');
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return asItShouldBe(head);
    throw error;
  }
  try {
    const { size } = fstatSync(fd);
    const { seals, owner, end } = lastSeals(fd, size);
    const [seal] = seals;
    const tornBytes = size - end;
    if (seal === undefined && size > 0) assertOurs(fd, file, size);
    const missing = head === undefined || holdsSeal(fd, end, seal, head) ? undefined : head;
    let quarantine: string | undefined;
    if (tornBytes > 0) {
      quarantine = moveToQuarantine(file, read(fd, end, tornBytes));
      ftruncateSync(fd, end);
      fsyncSync(fd);
    }
    const unclean = size > 0 && (tornBytes > 0 || (owner ?? seal)?.final !== true);
    // The first seal of this run names the last one as the one that it follows.
    const ends = seals.filter((each) => each !== seal || each !== owner);
    return { last: seal?.hash ?? head, unclean, tornBytes, quarantine, missing, ends };
  } finally {
    closeSync(fd);
  }
}

/**
 * What to follow in a log that other processes are writing. Its last seal may be far behind by the time we write, and
 * what stands behind it is one of their writes; the head stays what it is until the next rotation.
 */
export function join(file: string): Recovery {
  return asItShouldBe(readHead(file));
}

function asItShouldBe(last: string | undefined): Recovery {
  return { last, unclean: false, tornBytes: 0, quarantine: undefined, missing: undefined, ends: [] };
}

/** @returns the file that holds the bytes now, on disk */
function moveToQuarantine(file: string, bytes: Buffer): string {
  const quarantine = `${file}.torn-${new Date().toISOString().replaceAll(':', '')}`;
  try {
    writeFileSync(quarantine, bytes, { mode: 0o640, flush: true });
    syncDirectoryOfNow(quarantine);
  } catch (error) {
    // On a full disk the next start tries again: it must not find a heap of halves.
    rmSync(quarantine, { force: true });
    throw error;
  }
  return quarantine;
}

/** A log whose very first write was torn holds no seal either; any other file without one is somebody else's. */
function assertOurs(fd: number, file: string, size: number): void {
  const beginning = read(fd, 0, Math.min(size, OPENS.length)).toString('latin1');
  if (!OPENS.startsWith(beginning)) throw new Error(`${file} is not an audit log: it holds no seal`);
}

/**
 * The last seal of each chain, the last of the log first, and where that one ends; which is the owner's. Looks from the end towards the
 * beginning, as far as the run before may have noted nothing: a seal that has `writers` knows what stands before
 * the seal of the same chain that is before it.
 */
function lastSeals(fd: number, size: number): { seals: Seal[]; owner: Seal | undefined; end: number } {
  const seals = new Map<string, Seal>();
  let end = 0;
  let knowing: Seal | undefined;
  for (const at of backwards(fd, size, SEAL_MARK)) {
    if (at > 0 && read(fd, at - 1, 1)[0] !== NEWLINE) continue;
    const line = readLine(fd, at, size);
    const seal = line === undefined ? undefined : parseSeal(line);
    if (line === undefined || seal === undefined) continue;
    if (seals.size === 0) end = at + Buffer.byteLength(line) + 1;
    if (!seals.has(seal.chain)) seals.set(seal.chain, seal);
    if (knowing === undefined) knowing = seal.writers === undefined ? undefined : seal;
    else if (seal.chain === knowing.chain) break;
    if (end - at > MOST_LOOKED_BYTES) break;
  }
  return { seals: [...seals.values()], owner: knowing && seals.get(knowing.chain), end };
}

/** Whether the log holds this seal, or begins behind it. Nearly always it is the last one: only a crash makes us look. */
function holdsSeal(fd: number, end: number, last: Seal | undefined, hash: string): boolean {
  if (last === undefined || last.hash === hash) return true;
  for (const _ of backwards(fd, end, `${HASH_MARK}${hash}"`)) return true;
  for (const _ of backwards(fd, end, `"previous":"${hash}"`)) return true;
  return false;
}

/** Where a text occurs in the first `size` bytes of a file, the last first. */
function* backwards(fd: number, size: number, text: string): Generator<number> {
  for (let end = size; end > 0; ) {
    const from = Math.max(0, end - CHUNK_BYTES);
    // Longer by what may have been cut in two.
    const chunk = read(fd, from, Math.min(size, end + text.length - 1) - from);
    for (let at = chunk.lastIndexOf(text); at !== -1; ) {
      yield from + at;
      at = at === 0 ? -1 : chunk.lastIndexOf(text, at - 1);
    }
    end = from;
  }
}

/** The line that begins there, without its line break; undefined when it has none. */
function readLine(fd: number, from: number, size: number): string | undefined {
  for (let length = 4096; ; length *= 8) {
    const bytes = read(fd, from, Math.min(length, size - from));
    const newline = bytes.indexOf(NEWLINE);
    if (newline !== -1) return bytes.toString('utf8', 0, newline);
    if (from + bytes.length >= size) return undefined;
  }
}

function read(fd: number, from: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const count = readSync(fd, bytes, done, length - done, from + done);
    if (count === 0) break;
    done += count;
  }
  return bytes.subarray(0, done);
}
