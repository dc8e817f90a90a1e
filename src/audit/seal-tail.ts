import { close, fstat, read } from 'node:fs';
import { promisify } from 'node:util';
import { findSeals, type Seal } from './seal.ts';

const readBytes = promisify(read);
const statOf = promisify(fstat);
const closeFile = promisify(close);

const CHUNK_BYTES = 1024 * 1024;

/** Follows what several processes append to one file, and finds the seals in it. */
export class SealTail {
  readonly fd: number;
  /** Where the next look begins: no whole seal line stands behind it. */
  #offset: number;
  /** Of the file at the last look, with what this process has appended since. */
  #size: number;

  /** @param size what is there already is not looked at */
  constructor(fd: number, size: number) {
    this.fd = fd;
    this.#offset = Math.max(0, size - 1);
    this.#size = size;
  }

  /** What this process appends needs no look. */
  wrote(bytes: number): void {
    this.#size += bytes;
  }

  /** @returns the size of the file and the seals that were appended since the last call. @throws the system's error */
  async read(): Promise<{ size: number; seals: Seal[] }> {
    const { size } = await statOf(this.fd);
    const seals: Seal[] = [];
    if (size === this.#size) this.#offset = Math.max(0, size - 1);
    else {
      const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
      for (let step = 1; step > 0; this.#offset += step) {
        const { bytesRead } = await readBytes(this.fd, buffer, 0, CHUNK_BYTES, this.#offset);
        const { found, next } = findSeals(buffer.subarray(0, bytesRead));
        for (const { seal } of found) seals.push(seal);
        step = next;
      }
    }
    this.#size = size;
    return { size, seals };
  }

  close(): Promise<void> {
    return closeFile(this.fd);
  }
}
