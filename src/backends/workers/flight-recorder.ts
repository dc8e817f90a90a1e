import { writeSync } from 'node:fs';
import { METHODS } from 'node:http';
import { Worker } from 'node:worker_threads';
import type { ServerContext } from '../../server/exchange.ts';
import { CODE } from '../../version.ts';
import { LAYOUT, machineMs } from './flight-record.ts';

/** How often the loop shows the other thread that it turns. */
const BEAT_MS = 200;
/** What the other thread waits for more before it writes: what is over by then costs no write at all. */
export const RECORD_MS = 5;

const SHORT_PATH = 64;

/** Cells of shared memory. `IDLE` is 1 while the other thread waits to be woken. */
export const CELLS = { idle: 0, unnamed: 1, beat: 2, count: 3 } as const;
/** What a slot is: free, taken, or taken and in the file. */
export const SLOT = { free: 0, taken: 1, inFile: 2 } as const;

/** What the recorder's thread is given. */
export interface RecorderData {
  readonly fd: number;
  readonly cells: SharedArrayBuffer;
  readonly states: SharedArrayBuffer;
  readonly slots: SharedArrayBuffer;
  readonly recordMs: number;
  readonly controller: number;
  readonly orphanedMs: number;
  /** Constants, which a thread without a loader for TypeScript cannot import. */
  readonly names: {
    readonly LAYOUT: typeof LAYOUT;
    readonly CELLS: typeof CELLS;
    readonly SLOT: typeof SLOT;
  };
}

export interface RecorderOptions {
  /** The file that the controller reads. */
  readonly fd: number;
  /** What this process's request ids begin with. */
  readonly run: string;
  /** The process that reads the file. */
  readonly controller: number;
  /** How long after the end of that process a loop that stands still is given to end its drain. */
  readonly orphanedMs: number;
  /** Hears that nothing is recorded any more. */
  readonly failed: (error: Error) => void;
}

const METHOD_NUMBERS = new Map(METHODS.map((method, index) => [method, index]));
const { slotBytes, lengthAt, methodAt, idLengthAt, begunAt, pathAt, pathBytes, idAt } = LAYOUT;

/**
 * Remembers what is in flight in shared memory, from where another thread copies it into the file: also while the
 * application blocks this one. A request that is in the file is struck out here, at its end, so that the file never
 * names one that is over. What came in the last few milliseconds of a process that is killed is in no file.
 */
export class FlightRecorder implements NonNullable<ServerContext['recorder']> {
  /** Resolves when the thread runs: what is admitted before that is in no file until then. */
  readonly started: Promise<void>;
  readonly #fd: number;
  readonly #failed: (error: Error) => void;
  readonly #cells = new Int32Array(new SharedArrayBuffer(CELLS.count * 4));
  readonly #states = new Int32Array(new SharedArrayBuffer(LAYOUT.slots * 4));
  readonly #slots = new SharedArrayBuffer(LAYOUT.slots * slotBytes);
  readonly #bytes = Buffer.from(this.#slots);
  readonly #longs = new Uint32Array(this.#slots);
  readonly #shorts = new Uint16Array(this.#slots);
  readonly #doubles = new Float64Array(this.#slots);
  readonly #free = Array.from({ length: LAYOUT.slots }, (_, index) => LAYOUT.slots - 1 - index);
  readonly #end = new Uint32Array(1);

  constructor({ fd, run, controller, orphanedMs, failed }: RecorderOptions) {
    this.#fd = fd;
    this.#failed = failed;
    const head = Buffer.alloc(LAYOUT.endsAt);
    head.writeDoubleLE(machineMs() - performance.now(), LAYOUT.originAt);
    head.write(run, LAYOUT.runAt, 'latin1');
    writeSync(fd, head, 0, head.length, 0);
    setInterval(() => Atomics.add(this.#cells, CELLS.beat, 1), BEAT_MS).unref();
    const data: RecorderData = {
      ...{ fd, controller, orphanedMs, recordMs: RECORD_MS, names: { LAYOUT, CELLS, SLOT } },
      cells: this.#cells.buffer as SharedArrayBuffer,
      states: this.#states.buffer as SharedArrayBuffer,
      slots: this.#slots,
    };
    // The thread does not need this process's options, such as a loader.
    const thread = new Worker(new URL('backends/workers/recorder-thread.mjs', CODE), {
      workerData: data,
      execArgv: [],
    });
    thread.on('error', failed);
    thread.unref();
    this.started = new Promise((resolve) => thread.once('online', resolve));
  }

  begin({
    number,
    givenId = '',
    method,
    url,
    startedMs,
  }: Parameters<NonNullable<ServerContext['recorder']>['begin']>[0]): number {
    const slot = this.#free.pop();
    if (slot === undefined) {
      this.#countUnnamed(1);
      return -1;
    }
    const at = slot * slotBytes;
    const query = url.indexOf('?');
    const length = query === -1 ? url.length : query;
    this.#longs[at >> 2] = number;
    this.#shorts[(at + lengthAt) >> 1] = length;
    this.#bytes[at + methodAt] = METHOD_NUMBERS.get(method) ?? 255;
    this.#doubles[(at + begunAt) >> 3] = startedMs;
    const bytes = this.#bytes;
    bytes[at + idLengthAt] = givenId.length;
    if (givenId !== '') bytes.write(givenId, at + idAt, 'latin1');
    // A call out of JavaScript takes longer than a short loop.
    if (length > SHORT_PATH) bytes.write(url, at + pathAt, Math.min(length, pathBytes), 'latin1');
    else for (let n = 0; n < length; n += 1) bytes[at + pathAt + n] = url.charCodeAt(n);
    // Stored last, and atomically: a reader that sees it sees all of the above.
    Atomics.store(this.#states, slot, SLOT.taken);
    if (Atomics.load(this.#cells, CELLS.idle) === 1) this.#wake();
    return slot;
  }

  end(slot: number): void {
    if (slot === -1) {
      this.#countUnnamed(-1);
      return;
    }
    if (Atomics.exchange(this.#states, slot, SLOT.free) === SLOT.inFile) this.#strikeOut(slot);
    this.#free.push(slot);
  }

  #strikeOut(slot: number): void {
    this.#end[0] = this.#longs[(slot * slotBytes) >> 2] ?? 0;
    try {
      writeSync(this.#fd, this.#end, 0, 4, LAYOUT.endsAt + slot * 4);
    } catch (error) {
      this.#failed(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #countUnnamed(difference: number): void {
    Atomics.add(this.#cells, CELLS.unnamed, difference);
    if (Atomics.load(this.#cells, CELLS.idle) === 1) this.#wake();
  }

  #wake(): void {
    Atomics.store(this.#cells, CELLS.idle, 0);
    Atomics.notify(this.#cells, CELLS.idle);
  }
}
