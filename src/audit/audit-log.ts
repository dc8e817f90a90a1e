import { randomBytes } from 'node:crypto';
import type { AuditMode } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { replaceFile, replaceFileNow } from '../platform/atomic-file.ts';
import { type Deferred, deferred } from '../platform/deferred.ts';
import { version } from '../version.ts';
import { AuditFile } from './audit-file.ts';
import { Batch } from './batch.ts';
import { type DiskSpace, DiskWatch } from './disk-space.ts';
import { type Head, headFile, headText } from './head.ts';
import { OtherWriters } from './other-writers.ts';
import { join, type Recovery, recover, uncleanEnd } from './recover.ts';
import { NOTHING, type Writer } from './seal.ts';

/** A record while it is written. */
export type Line = Pick<Batch, 'bytes' | 'ascii' | 'utf8' | 'string'>;

/** What a record can hold. `undefined` is left out. */
export type AuditFields = Readonly<Record<string, unknown>>;

export interface AuditLogOptions {
  readonly file: string;
  readonly mode: AuditMode;
  readonly key: Buffer | undefined;
  /** Another process owns the log: what stands at its end is that one's, and so are its rotation and its head. */
  readonly joins?: boolean;
  /** Size past which the owner begins a new file; 0: never. Default 0. */
  readonly maxBytes?: number;
  /** How many files the owner keeps beside the one that is written. Default 16. */
  readonly keep?: number;
  /** Called once, when a record could not be written: the service has to lock. */
  readonly lost: (error: Error) => void;
  /** Takes the records that can no longer be written. */
  readonly fallback: (line: string) => void;
  /** Takes what an operator has to know while there is time: the disk fills, or a file cannot be rotated. */
  readonly warn?: (message: string) => void;
}

/** How long a record waits for others before they are written together. */
const BATCH_MS = 100;
/** A batch with this many records is written at once. */
const BATCH_RECORDS = 2_000;
/** Bytes that may wait for a disk that does not answer. More would end in no memory instead of in a lock. */
const MOST_WAITING_BYTES = 32 * 1024 * 1024;
/** How often the owner looks at what the others have written, how large the file is, and whether it was renamed. */
const LOOK_MS = 1_000;
const DISK_LOOK_MS = 10_000;
/** The least time between two rotations: the other writers have to find the new file before the next one. */
const ROTATE_MS = 1_000;

/**
 * The audit log of one process: append-only NDJSON, each write sealed into a chain. Of several processes that write
 * one log, the first owns it: it notes the chains of the others, rotates the file and keeps the head.
 *
 * One flush runs at a time; records that come meanwhile join the next. The first failure is final: the
 * descriptor is not trusted again (after a failed fsync the kernel may have dropped the pages it could not write),
 * and what could not be written goes to the fallback.
 */
export class AuditLog {
  readonly #options: AuditLogOptions;
  readonly #chain = `${randomBytes(4).toString('hex')}-${process.pid}`;
  readonly #recovery: Recovery;
  readonly #file: AuditFile;
  /** Undefined for a process that joins. */
  readonly #owner:
    | { readonly others: OtherWriters; readonly disk: DiskWatch; readonly timers: readonly NodeJS.Timeout[] }
    | undefined;
  #seq = 0;
  #previous: string;
  #waiting = new Batch();
  #spare = new Batch();
  /** Where a record goes that can no longer be written, on its way to the fallback. */
  readonly #unwritten = new Batch();
  /** Is on its way to the file. */
  #writing: Batch | undefined;
  /** Set when somebody waits for the records of the next flush to be on disk. */
  #joined: Deferred<boolean> | undefined;
  #flushing: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failure: Error | undefined;
  #closed = false;
  #reopenAsked = false;
  #lookAsked = false;
  #rotatedMs = Number.NEGATIVE_INFINITY;

  private constructor(options: AuditLogOptions, recovery: Recovery) {
    this.#options = options;
    this.#recovery = recovery;
    this.#previous = recovery.last ?? NOTHING;
    this.#file = new AuditFile(options.file, options.joins !== true);
    if (options.joins) return;
    const disk = new DiskWatch(options.file, (message) => options.warn?.(message));
    const timers = [setInterval(() => this.#look(), LOOK_MS), setInterval(() => disk.look(), DISK_LOOK_MS)];
    for (const timer of timers) timer.unref();
    this.#owner = { others: new OtherWriters(this.#chain, recovery.ends), disk, timers };
  }

  /**
   * Opens the log, puts what a crash has torn into quarantine, and writes the first records: a log that cannot be
   * written is found out before the service starts.
   * @throws the system's error
   */
  static open(options: AuditLogOptions): AuditLog {
    const recovery = options.joins ? join(options.file) : recover(options.file);
    const log = new AuditLog(options, recovery);
    log.#waiting.add(log.#opening(options.joins ? 'join' : 'start'));
    const unclean = uncleanEnd(recovery);
    if (unclean !== undefined) log.#waiting.add(textOf('unclean_end', { ...unclean }));
    try {
      log.#writeNow(false, log.#owner?.others.news());
    } catch (error) {
      log.#stopTimers();
      log.#file.close();
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

  /** The last seal that was written. Kept elsewhere, it shows later whether the end of the log was cut. */
  get head(): Head {
    return { chain: this.#chain, seq: this.#seq, hash: this.#previous };
  }

  /** Monotonic milliseconds of the last successful sync. */
  get lastSyncMs(): number | undefined {
    return this.#file.lastSyncMs;
  }

  /** Size of the file that is written; of what others write at most a second old. */
  get bytes(): number {
    return this.#file.bytes;
  }

  /** What is left of its disk, at most ten seconds old; undefined for a process that joins, or when it does not tell. */
  get disk(): DiskSpace | undefined {
    return this.#owner?.disk.space;
  }

  /** Why nothing is written any more. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Adds a record. It is written within 100 ms; in strict mode in the next flush. */
  record(type: string, fields: AuditFields): void {
    this.line.utf8(textOf(type, fields));
    this.endLine();
  }

  /** Where the next record is to be written, in this turn: one JSON object that begins with its type. */
  get line(): Line {
    return this.#isOpen ? this.#waiting : this.#unwritten;
  }

  /** The record in `line` is whole. */
  endLine(): void {
    if (!this.#isOpen) {
      this.#unwritten.endLine();
      this.#giveToFallback(this.#unwritten);
      return;
    }
    this.#waiting.endLine();
    const waitingBytes = this.#waiting.length + (this.#writing?.length ?? 0);
    if (waitingBytes > MOST_WAITING_BYTES) {
      this.#fail(new Error(`the disk does not take the audit log: ${waitingBytes} bytes wait`));
    } else if (this.#isPressing()) this.#startFlush();
    else this.#timer ??= setTimeout(() => this.#startFlush(), BATCH_MS);
  }

  /** Resolves when everything recorded so far is on disk: true, or false when it cannot be. */
  kept(): Promise<boolean> {
    if (!this.#isOpen) return Promise.resolve(false);
    this.#joined ??= deferred();
    this.#startFlush();
    return this.#joined.promise;
  }

  /** Continues in a new file under the same name, once what is recorded so far is in the old one. */
  reopen(): void {
    if (!this.#isOpen) return;
    this.#reopenAsked = true;
    this.#startFlush();
  }

  /**
   * Writes what is left, with a last seal, and closes the log.
   * @returns whether all of it is on disk
   */
  async close(): Promise<boolean> {
    while (this.#flushing !== undefined) await this.#flushing;
    if (this.#closed) return this.#failure === undefined;
    this.#closed = true;
    // No other flush may begin beside the last one.
    this.#stopTimers();
    if (this.#failure === undefined) (await this.#flush(true))();
    this.#file.close();
    return this.#failure === undefined;
  }

  /**
   * The same for a process that ends in this turn. Behind a write that is under way nothing can be written without
   * waiting for it: what is left then goes to the fallback.
   */
  closeNow(): void {
    if (!this.#isOpen) return;
    this.#closed = true;
    this.#stopTimers();
    try {
      if (this.#writing !== undefined) throw new Error('a write is under way');
      this.#writeNow(true);
    } catch {
      this.#giveToFallback(this.#writing, this.#waiting);
    }
  }

  get #isOpen(): boolean {
    return this.#failure === undefined && !this.#closed;
  }

  #stopTimers(): void {
    clearTimeout(this.#timer);
    for (const timer of this.#owner?.timers ?? []) clearInterval(timer);
  }

  /** What the owner finds is the next flush's. */
  #look(): void {
    this.#lookAsked = true;
    this.#startFlush();
  }

  #startFlush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#flushing ??= this.#flushAll();
  }

  /** Flushes until no waiter is left. What comes during one flush belongs to the next. */
  async #flushAll(): Promise<void> {
    // Let the turn of the loop end first: all that it records goes into one write.
    await new Promise(setImmediate);
    let tell = await this.#flush(false);
    while (this.#failure === undefined && this.#isPressing()) {
      // The disk has the next batch while the answers of this one leave.
      const next = this.#flush(false);
      tell();
      tell = await next;
    }
    tell();
    this.#flushing = undefined;
    // Under load there is always something more by now; it has the time to become a batch.
    if (this.#waiting.records > 0) this.#timer ??= setTimeout(() => this.#startFlush(), BATCH_MS);
  }

  #isPressing(): boolean {
    if (this.#joined !== undefined || this.#reopenAsked) return true;
    return this.#waiting.records >= (this.#options.mode === 'strict' ? 1 : BATCH_RECORDS);
  }

  /** Writes what waits, in this turn if no look at the file is due. @returns what tells those who wait for it */
  async #flush(final: boolean): Promise<() => void> {
    const joined = this.#joined;
    this.#joined = undefined;
    const mustSync = final || joined !== undefined || this.#options.mode === 'strict';
    try {
      const others = this.#owner?.others;
      const looks = this.#lookAsked || final;
      if (looks) await this.#readOthers();
      if (this.#reopenAsked || (this.#file.mayBeMoved && (await this.#file.isMoved())))
        await this.#continueInNewFile();
      else if (this.#isTooLarge()) await this.#rotate();
      // A note covers everything before our last seal, so it always follows a look.
      const writers = looks && (final || others?.isDue) ? others?.news() : undefined;
      if (this.#waiting.records > 0 || final || writers !== undefined) {
        const batch = this.#waiting;
        this.#waiting = this.#spare;
        await this.#write(batch, mustSync, final, writers);
        this.#spare = batch;
      } else if (joined !== undefined) await this.#file.sync();
      if (final && others !== undefined) await this.#keepHead();
      return () => joined?.resolve(true);
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(messageOf(error)));
      return () => joined?.resolve(false);
    }
  }

  /** Seals a batch and writes it. What is recorded meanwhile waits in another one. */
  async #write(batch: Batch, sync: boolean, final: boolean, writers?: readonly Writer[]): Promise<void> {
    this.#writing = batch;
    const { bytes, hash } = this.#seal(batch, final, writers);
    await this.#file.write(bytes);
    if (sync) await this.#file.sync();
    this.#sealed(hash);
    batch.clear();
    this.#writing = undefined;
  }

  /** Writes what waits without leaving this turn; it is on disk then, and so is the owner's head. */
  #writeNow(final: boolean, writers?: readonly Writer[]): void {
    const { bytes, hash } = this.#seal(this.#waiting, final, writers);
    this.#file.writeNow(bytes);
    this.#sealed(hash);
    this.#waiting.clear();
    if (this.#owner !== undefined) replaceFileNow(headFile(this.#options.file), headText(this.head));
  }

  #seal(
    batch: Batch,
    final: boolean,
    writers: readonly Writer[] | undefined,
  ): { bytes: Buffer; hash: string } {
    const time = new Date().toISOString();
    return batch.seal(
      { chain: this.#chain, seq: this.#seq + 1, previous: this.#previous, final, time, writers },
      this.#options.key,
    );
  }

  #sealed(hash: string): void {
    this.#seq += 1;
    this.#previous = hash;
  }

  async #readOthers(): Promise<void> {
    this.#lookAsked = false;
    if (this.#owner === undefined) return;
    const { before, here } = await this.#file.appended();
    this.#owner.others.saw(before, true);
    this.#owner.others.saw(here, false);
  }

  #isTooLarge(): boolean {
    const { maxBytes = 0 } = this.#options;
    if (this.#owner === undefined || maxBytes === 0 || this.#file.bytes < maxBytes) return false;
    return performance.now() - this.#rotatedMs >= ROTATE_MS;
  }

  /** A log that cannot be rotated goes on in its file: that is no reason to lock. */
  async #rotate(): Promise<void> {
    this.#rotatedMs = performance.now();
    try {
      await this.#file.rotate(this.#options.keep ?? 16);
    } catch (error) {
      this.#options.warn?.(`The audit log could not be rotated, and grows on: ${messageOf(error)}`);
      return;
    }
    await this.#continueInNewFile();
  }

  /** The first record of the new file carries the last seal of the old one, and stands under a seal of its own. */
  async #continueInNewFile(): Promise<void> {
    this.#reopenAsked = false;
    await this.#readOthers();
    await this.#file.reopen();
    if (this.#owner !== undefined) await this.#keepHead();
    const opening = new Batch();
    opening.add(this.#opening('reopened'));
    await this.#write(opening, false, false, this.#owner?.others.all());
  }

  #keepHead(): Promise<void> {
    return replaceFile(headFile(this.#options.file), headText(this.head));
  }

  #opening(reason: 'start' | 'join' | 'reopened'): string {
    return textOf('open', { reason, previous: this.#previous, version, pid: process.pid });
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#stopTimers();
    this.#giveToFallback(this.#writing, this.#waiting);
    this.#joined?.resolve(false);
    this.#options.lost(error);
  }

  #giveToFallback(...batches: readonly (Batch | undefined)[]): void {
    for (const batch of batches) for (const line of batch?.drain() ?? []) this.#options.fallback(line);
  }
}

function textOf(type: string, fields: AuditFields): string {
  return JSON.stringify({ type, time: new Date().toISOString(), ...fields });
}
