import { constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { hasCode } from '../error.ts';

/** Characters kept for a reader that does not read. Past that the oldest lines are dropped. */
const MOST_PENDING = 1024 * 1024;
/** When a full descriptor is tried again, doubling from the first to the last. Node cannot tell when it has room. */
const FIRST_RETRY_MS = 1;
const LAST_RETRY_MS = 50;
/** What the end of a process grants a slow reader. */
const EXIT_FLUSH_MS = 500;
/** `flushLog` looks this often. */
const FLUSH_STEP_MS = 2;

const outputs = new Set<LogOutput>();

/**
 * Writes what is left of the log, blocking the event loop for at most `ms`: for the very end of a process.
 * @returns whether everything was written
 */
export function flushLog(ms = EXIT_FLUSH_MS): boolean {
  const endMs = performance.now() + ms;
  const never = new Int32Array(new SharedArrayBuffer(4));
  let whole = true;
  for (const output of outputs) {
    while (!output.drain()) {
      if (performance.now() >= endMs) {
        whole = false;
        break;
      }
      Atomics.wait(never, 0, 0, FLUSH_STEP_MS);
    }
  }
  return whole;
}

/**
 * Where log lines go. Writing never blocks and never throws. A line is written before the call returns, so that it
 * outlives the process however that ends; only what the reader has no room for is kept in memory, up to a bound. Each
 * line is one write: up to 4096 bytes (PIPE_BUF) it stays whole between several processes.
 */
export class LogOutput {
  readonly #write: (data: Buffer) => number;
  readonly #dropNotice: (count: number) => string;
  readonly #pending: string[] = [];
  #size = 0;
  /** What is left of a line that was written in part. */
  #rest: Buffer | undefined;
  /** Lines dropped since the last notice. */
  #dropped = 0;
  #retry: NodeJS.Timeout | undefined;

  /**
   * @param dropNotice the line that says how many were dropped; it stands where they are missing
   * @param stream takes the lines when somebody has replaced its `write`: PM2 collects what is written that way alone
   */
  constructor(fd: number, dropNotice: (count: number) => string, stream?: Writable) {
    this.#write =
      stream !== undefined && Object.hasOwn(stream, 'write')
        ? (data) => {
            stream.write(data);
            return data.length;
          }
        : openWriter(fd);
    this.#dropNotice = dropNotice;
    if (outputs.size === 0) process.once('exit', () => flushLog());
    outputs.add(this);
  }

  write(line: string): void {
    this.#pending.push(line);
    this.#size += line.length;
    while (this.#size > MOST_PENDING) {
      this.#shift();
      this.#dropped += 1;
    }
    if (this.#retry === undefined) this.#tryAgain(FIRST_RETRY_MS);
  }

  /** Writes what there is room for. @returns whether nothing is left */
  drain(): boolean {
    for (;;) {
      const line = this.#pending[0];
      if (this.#rest === undefined && line === undefined) return true;
      const notice = this.#dropped > 0 ? this.#dropNotice(this.#dropped) : '';
      const data = this.#rest ?? Buffer.from(`${notice}${line}`);
      let written: number;
      try {
        written = this.#write(data);
      } catch (error) {
        if (hasCode(error, 'EAGAIN')) return false;
        // A full disk, or a reader that is gone: lines are lost, and the service goes on.
        if (this.#rest === undefined) this.#shift();
        this.#rest = undefined;
        this.#dropped += 1;
        continue;
      }
      if (this.#rest === undefined) {
        this.#shift();
        this.#dropped = 0;
      }
      this.#rest = written < data.length ? data.subarray(written) : undefined;
    }
  }

  #shift(): void {
    this.#size -= this.#pending.shift()?.length ?? 0;
  }

  #tryAgain(ms: number): void {
    this.#retry = undefined;
    if (this.drain()) return;
    this.#retry = setTimeout(() => this.#tryAgain(Math.min(2 * ms, LAST_RETRY_MS)), ms).unref();
  }
}

/**
 * A write that fails with EAGAIN instead of blocking. Whether a descriptor blocks is a property of its open file
 * description, which other processes may share: a shell, the workers, children of the application.
 */
function openWriter(fd: number): (data: Buffer) => number {
  const plain = (data: Buffer): number => writeSync(fd, data);
  try {
    // The kernel takes what is written to a regular file without a reader.
    if (fstatSync(fd).isFile()) return plain;
    // A pipe or a terminal can be opened anew: then only this process sees that it does not block.
    const { O_WRONLY, O_APPEND, O_NONBLOCK, O_NOCTTY } = constants;
    const own = openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY);
    return (data) => writeSync(own, data);
  } catch {
    // A socket (the journal's) or another user's pipe cannot.
  }
  try {
    unblock(fd);
    const info = openSync(`/proc/self/fdinfo/${fd}`, 'r');
    return (data) => {
      // libuv makes the standard descriptors of each child that it starts blocking again, and so ours.
      if (blocks(info)) unblock(fd);
      return writeSync(fd, data);
    };
  } catch {
    return plain;
  }
}

/** Sets O_NONBLOCK, as libuv does when it is given a descriptor. The socket is never used, so nothing closes `fd`. */
function unblock(fd: number): void {
  new Socket({ fd, readable: false, writable: true }).unref();
}

/** Reads the flags from proc(5)'s fdinfo, in octal. */
function blocks(info: number): boolean {
  const text = Buffer.alloc(64);
  readSync(info, text, 0, text.length, 0);
  const flags = Number.parseInt(/flags:\s*(\d+)/.exec(text.toString('latin1'))?.[1] ?? '0', 8);
  return (flags & constants.O_NONBLOCK) === 0;
}
