import { randomBytes } from 'node:crypto';
import type { AuditMode } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { version } from '../version.ts';
import { AuditFile } from './audit-file.ts';
import { type Head, keepHead } from './head.ts';
import { join, type Recovery, recover, uncleanEnd } from './recover.ts';
import { NOTHING, sealBatch } from './seal.ts';

/** Why a chain, or its part in a file, begins: a run, another writer of a run, or a new file. */
export type Opening = 'start' | 'join' | 'reopened';

/** What a record can hold. `undefined` is left out. */
export type AuditFields = Readonly<Record<string, unknown>>;

export interface AuditLogOptions {
  readonly file: string;
  readonly mode: AuditMode;
  readonly key: Buffer | undefined;
  /** Other processes are writing it already: what stands at its end is theirs, and nothing is set aside. */
  readonly joins?: boolean;
  /** Called once, when a record could not be written: the service has to lock. */
  readonly lost: (error: Error) => void;
  /** Takes the records that can no longer be written. */
  readonly fallback: (line: string) => void;
}

/** How long a record waits for others before they are written together. */
const BATCH_MS = 100;
/** A batch of so many records is written at once. */
const BATCH_RECORDS = 2_000;
/** Bytes that may wait for a disk that does not answer. More would end in no memory instead of in a lock. */
const MOST_WAITING_BYTES = 32 * 1024 * 1024;

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
  readonly #file: AuditFile;
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
  /** A sealed batch is on its way to the file. */
  #writing = false;
  #reopenAsked = false;

  private constructor(options: AuditLogOptions, recovery: Recovery) {
    this.#options = options;
    this.#file = new AuditFile(options.file);
    this.#recovery = recovery;
    this.#previous = recovery.last ?? NOTHING;
  }

  /**
   * Opens the log, sets aside what a crash has torn, and writes the first records: a log that cannot be written is
   * found out before the service starts.
   * @throws the system's error
   */
  static open(options: AuditLogOptions): AuditLog {
    const recovery = options.joins ? join(options.file) : recover(options.file);
    const log = new AuditLog(options, recovery);
    log.#note('open', log.#opening(options.joins ? 'join' : 'start'));
    const unclean = uncleanEnd(recovery);
    if (unclean !== undefined) log.#note('unclean_end', { ...unclean });
    try {
      const { bytes, records, hash } = log.#seal(false);
      log.#file.writeNow(bytes);
      log.#sealed(records, hash);
      if (!options.joins) keepHead(options.file, log.head);
    } catch (error) {
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

  /** The last seal that was written: whoever keeps it elsewhere can tell later whether the end was cut. */
  get head(): Head {
    return { chain: this.#chain, seq: this.#seq, hash: this.#previous };
  }

  /** Monotonic milliseconds of the last successful sync. */
  get lastSyncMs(): number | undefined {
    return this.#file.lastSyncMs;
  }

  /** Why nothing is written any more. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Adds a record. It is written within 100 ms; in strict mode in the next flush. */
  record(type: string, fields: AuditFields): void {
    this.add(lineOf(type, fields));
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
    } else if (this.#isPressing()) this.#startFlush();
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
    if (this.#failure !== undefined || this.#closed) return;
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
    clearTimeout(this.#timer);
    if (this.#failure === undefined) await this.#flush(true);
    this.#file.close();
    return this.#failure === undefined;
  }

  /**
   * The same for a process that ends in this turn. Behind a write that is under way nothing can be written without
   * waiting for it: what is left then goes to the fallback.
   */
  closeNow(): void {
    if (this.#closed || this.#failure !== undefined) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    try {
      if (this.#writing) throw new Error('a write is under way');
      const { bytes, records, hash } = this.#seal(true);
      this.#file.writeNow(bytes);
      this.#sealed(records, hash);
      keepHead(this.#options.file, this.head);
    } catch {
      for (const line of this.#waiting.splice(0)) this.#options.fallback(line);
    }
  }

  #startFlush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#flushing ??= this.#flushAll();
  }

  /** Flushes until nobody waits for it. What comes while one flush is under way is the next one's. */
  async #flushAll(): Promise<void> {
    // Let the turn of the loop end first: all that it records goes into one write.
    await new Promise(setImmediate);
    do await this.#flush(false);
    while (this.#failure === undefined && this.#isPressing());
    this.#flushing = undefined;
    // Under load there is always something more by now; it has the time to become a batch.
    if (this.#waiting.length > 0) this.#timer ??= setTimeout(() => this.#startFlush(), BATCH_MS);
  }

  #isPressing(): boolean {
    if (this.#joined.length > 0 || this.#reopenAsked) return true;
    return this.#waiting.length >= (this.#options.mode === 'strict' ? 1 : BATCH_RECORDS);
  }

  async #flush(final: boolean): Promise<void> {
    const joined = this.#joined;
    this.#joined = [];
    try {
      if (this.#reopenAsked || (await this.#file.isMoved())) await this.#continueInNewFile();
      if (this.#waiting.length > 0 || final) {
        const { bytes, records, hash } = this.#seal(final);
        this.#writing = true;
        await this.#file.write(bytes);
        if (final || joined.length > 0 || this.#options.mode === 'strict') await this.#file.sync();
        this.#sealed(records, hash);
        this.#writing = false;
      } else if (joined.length > 0) await this.#file.sync();
      if (final) keepHead(this.#options.file, this.head);
      for (const resolve of joined) resolve(true);
    } catch (error) {
      this.#joined.push(...joined);
      this.#fail(error instanceof Error ? error : new Error(messageOf(error)));
    }
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

  /** The first record of the new file carries the last seal of the old one. */
  async #continueInNewFile(): Promise<void> {
    this.#reopenAsked = false;
    await this.#file.reopen();
    keepHead(this.#options.file, this.head);
    const line = lineOf('open', this.#opening('reopened'));
    this.#waiting.unshift(line);
    this.#waitingBytes += line.length;
  }

  #opening(reason: Opening): AuditFields {
    return { reason, previous: this.#previous, version, pid: process.pid };
  }

  /** A record of the log's own, before it is open. */
  #note(type: string, fields: AuditFields): void {
    const line = lineOf(type, fields);
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

function lineOf(type: string, fields: AuditFields): string {
  return JSON.stringify({ type, time: new Date().toISOString(), ...fields });
}
