import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync, readSync, writeFileSync } from 'node:fs';
import { hasCode } from '../error.ts';
import { readHead } from './head.ts';
import { parseSeal, SEAL_MARK, type Seal } from './seal.ts';

/** What a log was found to end with. */
export interface Recovery {
  /** The hash of the last seal: in the file, or for a new file the one that was kept as its head. */
  readonly last: string | undefined;
  /** Whether the run before ended without closing its log. */
  readonly unclean: boolean;
  /** Bytes behind the last seal: a write that was torn. */
  readonly tornBytes: number;
  /** The file they were put into. */
  readonly aside: string | undefined;
}

const CHUNK_BYTES = 1024 * 1024;
/** How the first record of every log begins. */
const FIRST = '{"type":"open"';

/**
 * Finds the end of a log before anything is added to it. What stands behind the last seal was torn by a crash: it
 * is copied to a file beside the log, then taken off the log. When others write to
 * it too (`alone` is false), its end is only read.
 * @throws the system's error
 */
export function recover(file: string, alone: boolean): Recovery {
  let fd: number;
  try {
    fd = openSync(file, 'r+');
  } catch (error) {
    if (hasCode(error, 'ENOENT'))
      return { last: readHead(file), unclean: false, tornBytes: 0, aside: undefined };
    throw error;
  }
  try {
    const { size } = fstatSync(fd);
    const { seal, end } = lastSeal(fd, size);
    const tornBytes = size - end;
    if (seal === undefined && size > 0) assertOurs(fd, file, size);
    // What another process is writing just now looks like a torn end.
    if (!alone) return { last: seal?.hash ?? readHead(file), unclean: false, tornBytes: 0, aside: undefined };
    let aside: string | undefined;
    if (tornBytes > 0) {
      aside = `${file}.torn-${new Date().toISOString().replaceAll(':', '')}`;
      writeFileSync(aside, read(fd, end, tornBytes), { mode: 0o640, flush: true });
      ftruncateSync(fd, end);
      fsyncSync(fd);
    }
    return {
      last: seal?.hash ?? readHead(file),
      unclean: size > 0 && (tornBytes > 0 || seal?.final !== true),
      tornBytes,
      aside,
    };
  } finally {
    closeSync(fd);
  }
}

/** A log whose very first write was torn holds no seal either; any other file without one is somebody else's. */
function assertOurs(fd: number, file: string, size: number): void {
  const beginning = read(fd, 0, Math.min(size, FIRST.length)).toString('utf8');
  if (!FIRST.startsWith(beginning)) throw new Error(`${file} is not an audit log: it holds no seal`);
}

/** Reads from the end towards the beginning until a whole seal line is found. */
function lastSeal(fd: number, size: number): { seal: Seal | undefined; end: number } {
  let tail = Buffer.alloc(0);
  for (let start = size; start > 0; ) {
    const from = Math.max(0, start - CHUNK_BYTES);
    tail = Buffer.concat([read(fd, from, start - from), tail]);
    start = from;
    for (
      let at = tail.lastIndexOf(SEAL_MARK);
      at !== -1;
      at = at === 0 ? -1 : tail.lastIndexOf(SEAL_MARK, at - 1)
    ) {
      const startsLine = at === 0 ? start === 0 : tail[at - 1] === 0x0a;
      const lineEnd = tail.indexOf(0x0a, at);
      if (!startsLine || lineEnd === -1) continue;
      const seal = parseSeal(tail.toString('utf8', at, lineEnd));
      if (seal !== undefined) return { seal, end: start + lineEnd + 1 };
    }
  }
  return { seal: undefined, end: 0 };
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
