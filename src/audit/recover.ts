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
import { withSyncedNameNow } from '../platform/atomic-file.ts';
import { readHead } from './head.ts';
import { findSeals, OPENS, type Seal } from './seal.ts';

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

/** How the log ended uncleanly, for the record and for operators. */
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
/** How far back the ends of chains are looked for: more than one write, or what is written between two notes of them. */
const MOST_LOOKED_BYTES = 64 * CHUNK_BYTES;

/**
 * Finds the end of a log before anything is added to it. What stands behind the last seal was torn by a crash: it
 * is copied to a file beside the log, then taken off the log. Only for a log without a live writer.
 * @throws the system's error
 */
export function recover(file: string): Recovery {
  const head = readHead(file);
  let fd: number;
  try {
    fd = openSync(file, 'r+');
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return follow(head);
    throw error;
  }
  try {
    const { size } = fstatSync(fd);
    const { seals, end } = lastSeals(fd, size);
    const last = seals.at(-1);
    if (last === undefined && size > 0) assertOurs(fd, file, size);
    const missing = head === undefined || last === undefined || holds(fd, end, head) ? undefined : head;
    const tornBytes = size - end;
    let quarantine: string | undefined;
    if (tornBytes > 0) {
      quarantine = moveToQuarantine(file, read(fd, end, tornBytes));
      ftruncateSync(fd, end);
      fsyncSync(fd);
    }
    const ends = new Map(seals.map((seal) => [seal.chain, seal]));
    const note = noteIn(seals);
    const owner = (note && ends.get(note.chain)) ?? last;
    const unclean = tornBytes > 0 || (owner !== undefined && !owner.final);
    // The first seal of this run names the last one as the one that it follows.
    if (owner !== undefined && owner === last) ends.delete(owner.chain);
    return { last: last?.hash ?? head, unclean, tornBytes, quarantine, missing, ends: [...ends.values()] };
  } finally {
    closeSync(fd);
  }
}

/**
 * What to follow in a log that other processes are writing. Its last seal may be far behind by the time we write, and
 * what stands behind it is one of their writes; the head stays what it is until the next rotation.
 */
export function join(file: string): Recovery {
  return follow(readHead(file));
}

function follow(last: string | undefined): Recovery {
  return { last, unclean: false, tornBytes: 0, quarantine: undefined, missing: undefined, ends: [] };
}

/** @returns the file that holds the bytes now, on disk */
function moveToQuarantine(file: string, bytes: Buffer): string {
  const quarantine = `${file}.torn-${new Date().toISOString().replaceAll(':', '')}`;
  try {
    withSyncedNameNow(quarantine, () => writeFileSync(quarantine, bytes, { mode: 0o640, flush: true }));
  } catch (error) {
    // On a full disk the next start tries again: it must not find a heap of halves.
    rmSync(quarantine, { force: true });
    throw error;
  }
  return quarantine;
}

/** A log with a torn first write has no seal either; any other file without a seal is not an audit log. */
function assertOurs(fd: number, file: string, size: number): void {
  const beginning = read(fd, 0, Math.min(size, OPENS.length)).toString('latin1');
  if (size > MOST_LOOKED_BYTES || !OPENS.startsWith(beginning))
    throw new Error(`${file} is not an audit log: it holds no seal`);
}

/** The last seals of a log, as far back as the run before may have noted nothing, and where the last of them ends. */
function lastSeals(fd: number, size: number): { seals: Seal[]; end: number } {
  for (let length = CHUNK_BYTES; ; length *= 8) {
    const from = Math.max(0, size - length);
    const { found } = findSeals(read(fd, from, size - from));
    const seals = found.map(({ seal }) => seal);
    const note = noteIn(seals);
    // A seal that has `writers` knows what stands before the seal of its chain that is before it.
    const isEnough =
      note !== undefined && seals.some(({ chain, seq }) => chain === note.chain && seq < note.seq);
    if (isEnough || from === 0 || length >= MOST_LOOKED_BYTES)
      return { seals, end: from + (found.at(-1)?.end ?? 0) };
  }
}

/** The last seal with which the owner of the log has noted the other writers. */
function noteIn(seals: readonly Seal[]): Seal | undefined {
  return seals.findLast(({ writers }) => writers !== undefined);
}

/** Whether the log holds the seal with this hash, or begins behind it. */
function holds(fd: number, size: number, hash: string): boolean {
  for (let end = size; end > 0; end -= CHUNK_BYTES) {
    // Longer by what may have been cut in two.
    const from = Math.max(0, end - CHUNK_BYTES - hash.length);
    if (read(fd, from, end - from).includes(`"${hash}"`)) return true;
  }
  return false;
}

function read(fd: number, from: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const count = readSync(fd, bytes, done, length - done, from + done);
    if (count === 0) break;
    done += count;
  }
  return bytes.subarray(0, done);
}
