import { closeSync, fdatasync, fdatasyncSync, fstatSync, openSync, stat, write, writeSync } from 'node:fs';
import { promisify } from 'node:util';
import { hasCode } from '../error.ts';
import { syncDirectoryOf } from './head.ts';

/** How often the name is compared with the file that is open: it may have been renamed. */
const LOOK_MS = 1_000;

const writeBytes = promisify(write);
const syncData = promisify(fdatasync);
const statFile = promisify(stat);

/** The file of the audit log under its name: one descriptor, open for append. Every method throws the system's error. */
export class AuditFile {
  readonly name: string;
  #fd: number;
  #lookedMs = performance.now();
  #lastSyncMs: number | undefined;

  constructor(name: string) {
    this.name = name;
    this.#fd = openForAppend(name);
  }

  /** Monotonic milliseconds of the last successful sync. */
  get lastSyncMs(): number | undefined {
    return this.#lastSyncMs;
  }

  async write(bytes: Buffer): Promise<void> {
    assertWhole((await writeBytes(this.#fd, bytes)).bytesWritten, bytes);
  }

  async sync(): Promise<void> {
    await syncData(this.#fd);
    this.#lastSyncMs = performance.now();
  }

  /** Comes back when the bytes are on disk. */
  writeNow(bytes: Buffer): void {
    assertWhole(writeSync(this.#fd, bytes), bytes);
    fdatasyncSync(this.#fd);
    this.#lastSyncMs = performance.now();
  }

  /** Whether the name stands for another file by now, or for none. */
  async isMoved(): Promise<boolean> {
    const open = fstatSync(this.#fd);
    // A file without a name loses all that is written to it, so that is looked for each time.
    if (open.nlink === 0) return true;
    if (performance.now() - this.#lookedMs < LOOK_MS) return false;
    this.#lookedMs = performance.now();
    try {
      const named = await statFile(this.name);
      return named.ino !== open.ino || named.dev !== open.dev;
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return true;
      throw error;
    }
  }

  /** Goes on in the file that the name stands for, once what was written is on disk in the old one. */
  async reopen(): Promise<void> {
    await this.sync();
    const old = this.#fd;
    this.#fd = openForAppend(this.name);
    closeSync(old);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

function openForAppend(name: string): number {
  const fd = openSync(name, 'a', 0o640);
  if (fstatSync(fd).size === 0) syncDirectoryOf(name);
  return fd;
}

/** A regular file takes a write whole or is full. What would follow could land behind another process's records. */
function assertWhole(written: number, bytes: Buffer): void {
  if (written !== bytes.length) throw new Error(`only ${written} of ${bytes.length} bytes could be written`);
}
