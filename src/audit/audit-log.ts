import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  openSync,
  stat,
  write,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import type { AuditMode } from '../config.ts';
import { hasCode, messageOf } from '../error.ts';
import { version } from '../version.ts';
import { type Head, keepHead } from './head.ts';
import { type Recovery, recover } from './recover.ts';
import { NOTHING, sealBatch } from './seal.ts';

/** What a record can hold. `undefined` is left out. */
export type AuditFields = Readonly<Record<string, unknown>>;

export interface AuditLogOptions {
  readonly file: string;
  readonly mode: AuditMode;
  readonly key: Buffer | undefined;
  /** Whether to set aside what a crash has torn: only for who is alone with the log. */
  readonly recover: boolean;
  /** Called once, when a record could not be written: the service has to lock. */
  readonly lost: (error: Error) => void;
  /** Takes the records that can no longer be written. */
  readonly fallback: (line: string) => void;
}

/** How long a record waits for others before they are written together. */
const BATCH_MS = 100;
/** A batch of so many records is written at once. */
const BATCH_RECORDS = 2_000;
/** How often the name is compared with the file that is open: it may have been renamed or deleted. */
const LOOK_MS = 1_000;
/** Bytes that may wait for a disk that does not answer. More would end in no memory instead of in a lock. */
const MOST_WAITING_BYTES = 32 * 1024 * 1024;

const writeBytes = promisify(write);
const syncData = promisify(fdatasync);
const statFile = promisify(stat);

/**
 * The audit log of one process: append-only NDJSON, each write sealed into a chain.
 *
 * One flush is under way at a time; whoever records meanwhile joins the next. The first failure is final: the
 * descriptor is not trusted again (after a failed fsync the kernel may have dropped the pages it could not write),
 * and what could not be written goes to the fallback.
 */
export class AuditLog {
  readonly #options: AuditLogOptions;
  readonly #chain = `${randomBytes(4).toString('hex')}-${process.pid}`;
  readonly #recovery: Recovery;
  #fd: number;
  #seq = 0;
  #previous: string;
  #waiting: string[] = [];
  #waitingBytes = 0;
  /** Those who wait for the records of the next flush to be on disk. */
  #joined: ((kept: boolean) => void)[] = [];
  #flushing: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failure: Error | undefined;
  #closed = false;
  #reopenAsked = false;
  #lookedMs = performance.now();
  #lastSyncMs: number | undefined;

  private constructor(options: AuditLogOptions, fd: number, recovery: Recovery) {
    this.#options = options;
    this.#fd = fd;
    this.#recovery = recovery;
    this.#previous = recovery.last ?? NOTHING;
  }

  /**
   * Opens the log, sets aside what a crash has torn, and writes the first records: a log that cannot be written is
   * found out before the service starts.
   * @throws the system's error
   */
  static open(options: AuditLogOptions): AuditLog {
    const recovery = recover(options.file, options.recover);
    const log = new AuditLog(options, openForAppend(options.file), recovery);
    log.#note('open', { reason: 'start', previous: log.#previous, version, pid: process.pid });
    if (recovery.unclean) {
      log.#note('unclean_end', { torn_bytes: recovery.tornBytes, aside: recovery.aside ?? null });
    }
    try {
      const { bytes, records, hash } = log.#seal(false);
      writeWhole(writeSync(log.#fd, bytes), bytes);
      fdatasyncSync(log.#fd);
      log.#sealed(records, hash);
      log.#lastSyncMs = performance.now();
    } catch (error) {
      closeSync(log.#fd);
      throw error;
    }
    return log;
  }

  /** What the run before had left behind. */
  get recovery(): Recovery {
    return this.#recovery;
  }

  get mode(): AuditMode {
    return this.#options.mode;
  }

  /** The last seal that was written: whoever keeps it elsewhere can tell later whether the end was cut. */
  get head(): Head {
    return { chain: this.#chain, seq: this.#seq, hash: this.#previous };
  }

  /** Monotonic milliseconds of the last successful sync. */
  get lastSyncMs(): number | undefined {
    return this.#lastSyncMs;
  }

  /** Why nothing is written any more. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Adds a record. It is written within 100 ms; in strict mode in the next flush. */
  record(type: string, fields: AuditFields): void {
    this.add(JSON.stringify({ type, time: new Date().toISOString(), ...fields }));
  }

  /** Adds a record that is a line of JSON already, beginning with its type. */
  add(line: string): void {
    if (this.#failure !== undefined || this.#closed) {
      this.#options.fallback(line);
      return;
    }
    this.#waiting.push(line);
    this.#waitingBytes += line.length;
    if (this.#waitingBytes > MOST_WAITING_BYTES) {
      this.#fail(new Error(`the disk does not take the audit log: ${this.#waitingBytes} bytes wait`));
    } else if (this.#options.mode === 'strict' || this.#waiting.length >= BATCH_RECORDS) this.#startFlush();
    else this.#timer ??= setTimeout(() => this.#startFlush(), BATCH_MS);
  }

  /** Resolves when everything recorded so far is on disk: true, or false when it cannot be. */
  kept(): Promise<boolean> {
    if (this.#failure !== undefined || this.#closed) return Promise.resolve(false);
    const kept = new Promise<boolean>((resolve) => this.#joined.push(resolve));
    this.#startFlush();
    return kept;
  }

  /** Continues in a new file under the same name, once what is recorded so far is in the old one. */
  reopen(): void {
    this.#reopenAsked = true;
    this.#startFlush();
  }

  /**
   * Writes what is left, with a last seal, and closes the log.
   * @returns whether all of it is on disk
   */
  async close(): Promise<boolean> {
    while (this.#flushing !== undefined) await this.#flushing;
    if (this.#closed || this.#failure !== undefined) return this.#failure === undefined;
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#flush(true);
    if (this.#failure !== undefined) return false;
    closeSync(this.#fd);
    keepHead(this.#options.file, this.head);
    return true;
  }

  #startFlush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#flushing ??= this.#flushAll();
  }

  /** Flushes until nothing waits. What comes while one flush is under way is the next one's. */
  async #flushAll(): Promise<void> {
    // Let the turn of the loop end first: all that it records goes into one write.
    await new Promise(setImmediate);
    while (
      this.#failure === undefined &&
      (this.#waiting.length > 0 || this.#joined.length > 0 || this.#reopenAsked)
    ) {
      await this.#flush(false);
    }
    this.#flushing = undefined;
  }

  async #flush(final: boolean): Promise<void> {
    const joined = this.#joined;
    this.#joined = [];
    try {
      if (!final && (this.#reopenAsked || (await this.#isMoved()))) await this.#continueInNewFile();
      if (this.#waiting.length > 0 || final) {
        const { bytes, records, hash } = this.#seal(final);
        writeWhole((await writeBytes(this.#fd, bytes)).bytesWritten, bytes);
        if (final || joined.length > 0 || this.#options.mode === 'strict') await this.#sync();
        this.#sealed(records, hash);
      } else if (joined.length > 0) await this.#sync();
      for (const resolve of joined) resolve(true);
    } catch (error) {
      this.#joined.push(...joined);
      this.#fail(error instanceof Error ? error : new Error(messageOf(error)));
    }
  }

  async #sync(): Promise<void> {
    await syncData(this.#fd);
    this.#lastSyncMs = performance.now();
  }

  #seal(final: boolean): { bytes: Buffer; records: number; hash: string } {
    const { bytes, hash } = sealBatch(
      this.#waiting,
      {
        chain: this.#chain,
        seq: this.#seq + 1,
        previous: this.#previous,
        final,
        time: new Date().toISOString(),
      },
      this.#options.key,
    );
    return { bytes, records: this.#waiting.length, hash };
  }

  /** The batch is written: only now its records stop waiting. */
  #sealed(records: number, hash: string): void {
    this.#seq += 1;
    this.#previous = hash;
    for (const line of this.#waiting.splice(0, records)) this.#waitingBytes -= line.length;
  }

  async #isMoved(): Promise<boolean> {
    if (performance.now() - this.#lookedMs < LOOK_MS) return false;
    this.#lookedMs = performance.now();
    try {
      const named = await statFile(this.#options.file);
      const open = fstatSync(this.#fd);
      return named.ino !== open.ino || named.dev !== open.dev;
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return true;
      throw error;
    }
  }

  /** The first record of the new file carries the last seal of the old one. */
  async #continueInNewFile(): Promise<void> {
    this.#reopenAsked = false;
    const old = this.#fd;
    await syncData(old);
    this.#fd = openForAppend(this.#options.file);
    closeSync(old);
    this.#waiting.unshift(
      JSON.stringify({
        type: 'open',
        time: new Date().toISOString(),
        reason: 'reopened',
        previous: this.#previous,
        version,
        pid: process.pid,
      }),
    );
  }

  #note(type: string, fields: AuditFields): void {
    const line = JSON.stringify({ type, time: new Date().toISOString(), ...fields });
    this.#waiting.push(line);
    this.#waitingBytes += line.length;
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    clearTimeout(this.#timer);
    for (const line of this.#waiting.splice(0)) this.#options.fallback(line);
    for (const resolve of this.#joined.splice(0)) resolve(false);
    this.#options.lost(error);
  }
}

/** @throws the system's error */
function openForAppend(file: string): number {
  const fd = openSync(file, 'a', 0o640);
  if (fstatSync(fd).size === 0) {
    // A new file is only there after a crash when its directory is on disk too.
    const directory = openSync(dirname(file), 'r');
    fsyncSync(directory);
    closeSync(directory);
  }
  return fd;
}

/** A regular file takes a write whole or is full. What would follow could land behind another process's records. */
function writeWhole(written: number, bytes: Buffer): void {
  if (written !== bytes.length) throw new Error(`only ${written} of ${bytes.length} bytes could be written`);
}
