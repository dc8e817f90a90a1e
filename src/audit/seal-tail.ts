import { close, fstat, read } from 'node:fs';
import { promisify } from 'node:util';
import { parseSeal, SEAL_MARK, type Seal } from './seal.ts';

const readBytes = promisify(read);
const statOf = promisify(fstat);
const closeFile = promisify(close);

const CHUNK_BYTES = 1024 * 1024;
const NEWLINE = 0x0a;
const SEAL_LINE = `\n${SEAL_MARK}`;

/** Follows what several processes append to one file, and finds the seals in it. */
export class SealTail {
  readonly fd: number;
  /** Where the next look begins. */
  #offset: number;
  /** Of the file at the last look, with what this process has appended since. */
  #size: number;

  /** @param size what is there already is not looked at */
  constructor(fd: number, size: number) {
    this.fd = fd;
    this.#size = size;
    this.#offset = startOfNext(size);
  }

  /** What this process appends needs no look. */
  wrote(bytes: number): void {
    this.#size += bytes;
  }

  /** @returns the size of the file and the seals that were appended since the last call. @throws the system's error */
  async read(): Promise<{ size: number; seals: Seal[] }> {
    const { size } = await statOf(this.fd);
    const seals: Seal[] = [];
    if (size === this.#size) this.#offset = startOfNext(size);
    else {
      const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
      for (;;) {
        const { bytesRead } = await readBytes(this.fd, buffer, 0, buffer.length, this.#offset);
        const next = this.#offset + findSeals(buffer.subarray(0, bytesRead), seals);
        const isOver = bytesRead < buffer.length || next === this.#offset;
        this.#offset = next;
        if (isOver) break;
      }
    }
    this.#size = size;
    return { size, seals };
  }

  close(): Promise<void> {
    return closeFile(this.fd);
  }
}

/** @returns where the next look begins: no whole seal line stands behind it */
function findSeals(bytes: Buffer, seals: Seal[]): number {
  let at = bytes.indexOf(SEAL_LINE);
  while (at !== -1) {
    const end = bytes.indexOf(NEWLINE, at + 1);
    if (end === -1) return at;
    const seal = parseSeal(bytes.toString('utf8', at + 1, end));
    if (seal !== undefined) seals.push(seal);
    at = bytes.indexOf(SEAL_LINE, end);
  }
  return startOfNext(bytes.length);
}

/** The beginning of a seal line may be cut in two by the end of what was read. */
function startOfNext(length: number): number {
  return Math.max(0, length - SEAL_LINE.length);
}
