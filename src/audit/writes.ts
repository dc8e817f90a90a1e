import { closeSync, openSync, readSync } from 'node:fs';
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
    let buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    let filled = 0;
    /** Before it no further seal line begins. */
    let searched = 0;
    for (;;) {
      const count = readOn(fd, buffer, filled, patienceMs);
      if (count === 0) break;
      filled += count;
      heard?.(count);
      const bytes = buffer.subarray(0, filled);
      let start = 0;
      for (;;) {
        const sealAt = findSealLine(bytes, searched);
        const end = sealAt === -1 ? 0 : bytes.indexOf(NEWLINE, sealAt) + 1;
        if (end === 0) {
          // The mark itself may be cut in two by the end of the chunk.
          searched = sealAt === -1 ? Math.max(start, filled - SEAL_MARK.length) : sealAt;
          break;
        }
        yield { bytes: bytes.subarray(start, end), sealAt: sealAt - start };
        start = end;
        searched = end;
      }
      // Only the write that is not whole yet is kept, in a buffer that it does not fill.
      if (filled - start > buffer.length / 2) buffer = Buffer.allocUnsafe(buffer.length * 2);
      bytes.copy(buffer, 0, start);
      filled -= start;
      searched -= start;
    }
    if (filled > 0) yield { bytes: buffer.subarray(0, filled), sealAt: undefined };
  } finally {
    closeSync(fd);
  }
}

/** Reads on. At the end of the file a write that is not whole yet is given some time. @returns how many bytes */
function readOn(fd: number, buffer: Buffer, filled: number, patienceMs: number): number {
  const count = readSync(fd, buffer, filled, buffer.length - filled, null);
  if (count > 0 || filled === 0 || patienceMs === 0) return count;
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, patienceMs);
  return readSync(fd, buffer, filled, buffer.length - filled, null);
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
