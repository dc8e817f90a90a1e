import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { SEAL_MARK } from './seal.ts';

/** Some records and the seal line behind them, as one process has written them in one go. */
export interface Write {
  /** All of it. Only good until the next write is asked for. */
  readonly bytes: Buffer;
  /** Where in `bytes` the seal line begins; undefined for what stands at the end of a file without a seal. */
  readonly sealAt: number | undefined;
}

/** Small enough to stay in the processor's cache between the search for a seal and the hash. */
const CHUNK_BYTES = 256 * 1024;
const NEWLINE = 0x0a;

export interface ReadOptions {
  /** Is told how many bytes each look at the file has brought. */
  readonly heard?: (bytes: number) => void;
  /** How long a write at the end may take to become whole: the log may be in use. Default 0. */
  readonly patienceMs?: number | undefined;
}

/**
 * The writes of a file, one after the other. No more than one chunk and one write are in memory.
 * @throws the system's error when the file cannot be read
 */
export function* writesOf(file: string, { heard, patienceMs = 0 }: ReadOptions = {}): Generator<Write> {
  const fd = openSync(file, 'r');
  try {
    let buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, fstatSync(fd).size + 1));
    let filled = 0;
    /** Where in the file the buffer begins. */
    let offset = 0;
    for (let searched = 0, waited = false; ; ) {
      const count = readSync(fd, buffer, filled, buffer.length - filled, offset + filled);
      if (count === 0) {
        if (filled === 0 || waited || patienceMs === 0) break;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, patienceMs);
        waited = true;
        continue;
      }
      waited = false;
      filled += count;
      heard?.(count);
      let start = 0;
      for (;;) {
        const sealAt = findSealLine(buffer.subarray(0, filled), searched);
        const newline = sealAt === -1 ? -1 : buffer.subarray(0, filled).indexOf(NEWLINE, sealAt);
        if (newline === -1) {
          // The mark itself may be cut in two by the end of the chunk.
          searched = sealAt === -1 ? Math.max(start, filled - SEAL_MARK.length) : sealAt;
          break;
        }
        const end = newline + 1;
        yield { bytes: buffer.subarray(start, end), sealAt: sealAt - start };
        start = end;
        searched = end;
      }
      // Only the write that is not whole yet is kept, in a buffer that it does not fill.
      const next = filled - start > buffer.length / 2 ? Buffer.allocUnsafe(buffer.length * 2) : buffer;
      buffer.copy(next, 0, start, filled);
      buffer = next;
      filled -= start;
      searched -= start;
      offset += start;
    }
    if (filled > 0) yield { bytes: buffer.subarray(0, filled), sealAt: undefined };
  } finally {
    closeSync(fd);
  }
}

/** Lines without their line breaks. What the last one lacks is not made up. */
export function linesOf(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const newline = bytes.indexOf(NEWLINE, at);
    const stop = newline === -1 ? bytes.length : newline;
    lines.push(bytes.subarray(at, stop));
    at = stop + 1;
  }
  return lines;
}

/** The next line that begins like a seal, from `from` on; a mark inside a line is none. */
function findSealLine(buffer: Buffer, from: number): number {
  for (let at = buffer.indexOf(SEAL_MARK, from); at !== -1; at = buffer.indexOf(SEAL_MARK, at + 1)) {
    if (at === 0 || buffer[at - 1] === NEWLINE) return at;
  }
  return -1;
}
