import {
  closeSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  open,
  openSync,
  stat,
  write,
  writeSync,
} from 'node:fs';
import { readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { hasCode } from '../error.ts';
import { withSyncedName, withSyncedNameNow } from '../platform/atomic-file.ts';
import type { Seal } from './seal.ts';
import { SealTail } from './seal-tail.ts';

/** How often the name is compared with the file that is open: it may have been renamed. */
const LOOK_MS = 250;
/** How long after a rotation another writer may still append to the old file: its next write finds the new one. */
const LATE_WRITES_MS = 10_000;

const writeBytes = promisify(write);
const syncData = promisify(fdatasync);
const statFile = promisify(stat);
const openFile = promisify(open);

/** The owner of the log also reads it: what others append. */
const FLAGS = 'a+';
const MODE = 0o640;

/** The file of the audit log under its name: one descriptor, open for append. Every method throws the system's error. */
export class AuditFile {
  readonly name: string;
  /** Whether `appended` is asked. */
  readonly #follows: boolean;
  #tail: SealTail;
  /** The file before this one, which others may not have left yet. */
  #old: { readonly tail: SealTail; readonly untilMs: number } | undefined;
  #bytes: number;
  #lookedMs = performance.now();
  #lastSyncMs: number | undefined;

  constructor(name: string, follows: boolean) {
    this.name = name;
    this.#follows = follows;
    const fd = withSyncedNameNow(name, () => openSync(name, FLAGS, MODE));
    this.#bytes = fstatSync(fd).size;
    this.#tail = new SealTail(fd, this.#bytes);
  }

  /** Size of the file; what others append counts from the next look at it on. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Monotonic milliseconds of the last successful sync. */
  get lastSyncMs(): number | undefined {
    return this.#lastSyncMs;
  }

  async write(bytes: Buffer): Promise<void> {
    this.#wrote((await writeBytes(this.#tail.fd, bytes)).bytesWritten, bytes);
  }

  async sync(): Promise<void> {
    await syncData(this.#tail.fd);
    this.#lastSyncMs = performance.now();
  }

  /** Comes back when the bytes are on disk. */
  writeNow(bytes: Buffer): void {
    this.#wrote(writeSync(this.#tail.fd, bytes), bytes);
    fdatasyncSync(this.#tail.fd);
    this.#lastSyncMs = performance.now();
  }

  /** A regular file takes a write whole or is full. What would follow could land behind another process's records. */
  #wrote(written: number, bytes: Buffer): void {
    if (written !== bytes.length)
      throw new Error(`only ${written} of ${bytes.length} bytes could be written`);
    this.#bytes += written;
    this.#tail.wrote(written);
  }

  /** The seals that were appended since the last call, by others and by us, in this file and the one `before` it. */
  async appended(): Promise<{ before: Seal[]; here: Seal[] }> {
    const before = (await this.#old?.tail.read())?.seals ?? [];
    if (this.#old !== undefined && performance.now() > this.#old.untilMs) await this.#closeOld();
    const { size, seals } = await this.#tail.read();
    this.#bytes = size;
    return { before, here: seals };
  }

  /** Whether `isMoved` is to be asked. A file without a name loses all that is written to it: that is seen each time. */
  get mayBeMoved(): boolean {
    return performance.now() - this.#lookedMs >= LOOK_MS || fstatSync(this.#tail.fd).nlink === 0;
  }

  /** Whether the path now names another file, or none. */
  async isMoved(): Promise<boolean> {
    const open = fstatSync(this.#tail.fd);
    if (open.nlink === 0) return true;
    this.#lookedMs = performance.now();
    try {
      const named = await statFile(this.name);
      return named.ino !== open.ino || named.dev !== open.dev;
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return true;
      throw error;
    }
  }

  /**
   * Renames the file to `.1`, and each numbered file, compressed ones (`.gz`) too, to the next number. Keeps the first
   * `keep` of them.
   */
  async rotate(keep: number): Promise<void> {
    const directory = dirname(this.name);
    const numbered = (await readdir(directory)).flatMap((entry) => {
      const number = numberOf(entry.replace(/\.gz$/, ''), basename(this.name));
      return number === undefined ? [] : { number, path: join(directory, entry) };
    });
    for (const { number, path } of numbered.sort((one, other) => other.number - one.number)) {
      if (number >= keep) await rm(path);
      else await rename(path, `${this.name}.${number + 1}${path.endsWith('.gz') ? '.gz' : ''}`);
    }
    await rename(this.name, `${this.name}.1`);
  }

  /** Continues in the file that the path now names, after the old one is synced. */
  async reopen(): Promise<void> {
    await this.sync();
    const fd = await withSyncedName(this.name, () => openFile(this.name, FLAGS, MODE));
    await this.#closeOld();
    if (this.#follows) this.#old = { tail: this.#tail, untilMs: performance.now() + LATE_WRITES_MS };
    else await this.#tail.close();
    // What others have written there before us is read from its beginning.
    this.#tail = new SealTail(fd, 0);
    this.#bytes = fstatSync(fd).size;
  }

  async #closeOld(): Promise<void> {
    const old = this.#old;
    this.#old = undefined;
    await old?.tail.close();
  }

  close(): void {
    closeSync(this.#tail.fd);
    if (this.#old !== undefined) closeSync(this.#old.tail.fd);
  }
}

/** The number of a rotated file of this log; undefined for any other file. */
export function numberOf(entry: string, log: string): number | undefined {
  const suffix = entry.startsWith(`${log}.`) ? entry.slice(log.length + 1) : '';
  return /^[1-9]\d*$/.test(suffix) ? Number(suffix) : undefined;
}
