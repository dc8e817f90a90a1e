import { Worker } from 'node:worker_threads';

/** How long the loop may stand still before what is in flight is written down. */
const STALL_MS = 500;
const BEAT_MS = 200;
/** Requests that are remembered at most; while more are in flight the others go without a name. */
const SLOTS = 512;
/** When it was admitted, as wall-clock milliseconds; 0 for a free slot. Then the length of the text, then the text. */
const LAYOUT = { slotBytes: 256, lengthAt: 8, textAt: 10 } as const;

/** What the recorder's thread is given. */
export interface RecorderData {
  /** Shared with the main thread: a number that grows while its loop turns, and what is in flight. */
  readonly beats: SharedArrayBuffer;
  readonly slots: SharedArrayBuffer;
  readonly layout: typeof LAYOUT;
  readonly stallMs: number;
  readonly fd: number;
  readonly controller: number;
  readonly orphanedMs: number;
}

export interface RecorderOptions {
  /** Where the names are written. */
  readonly fd: number;
  /** The process that reads them. */
  readonly controller: number;
  /** How long after the end of that process a loop that stands still is given to end its drain. */
  readonly orphanedMs: number;
  /** Hears that the thread has ended: nothing is recorded any more. */
  readonly failed: (error: Error) => void;
}

/** What a record needs of a request. */
export interface Recorded {
  readonly id: string;
  readonly method: string;
  readonly path: string;
}

/**
 * Remembers what is in flight where another thread can read it. When the application blocks the event loop, nothing
 * in this thread runs any more: the other one then writes the names to the controller, which can say what it cut.
 */
export class FlightRecorder {
  readonly #beats = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
  readonly #slots = new SharedArrayBuffer(SLOTS * LAYOUT.slotBytes);
  readonly #view = new DataView(this.#slots);
  readonly #bytes = Buffer.from(this.#slots);
  readonly #free = Array.from({ length: SLOTS }, (_, index) => SLOTS - 1 - index);

  constructor({ fd, controller, orphanedMs, failed }: RecorderOptions) {
    const cell = new Int32Array(this.#beats);
    setInterval(() => {
      Atomics.add(cell, 0, 1);
      Atomics.notify(cell, 0);
    }, BEAT_MS).unref();
    const data: RecorderData = {
      ...{ beats: this.#beats, slots: this.#slots, layout: LAYOUT, stallMs: STALL_MS },
      ...{ fd, controller, orphanedMs },
    };
    // Options of this process, such as a loader, are none of the thread's business.
    const thread = new Worker(new URL('./recorder-thread.mjs', import.meta.url), {
      workerData: data,
      execArgv: [],
    });
    thread.on('error', failed);
    thread.unref();
  }

  /** Remembers a request; call what is returned when it is over. */
  begin({ id, method, path }: Recorded): () => void {
    const slot = this.#free.pop();
    if (slot === undefined) return () => undefined;
    const { slotBytes, lengthAt, textAt } = LAYOUT;
    const at = slot * slotBytes;
    const length = this.#bytes.write(`${id} ${method} ${path}`, at + textAt, slotBytes - textAt, 'utf8');
    this.#view.setUint16(at + lengthAt, length);
    this.#view.setFloat64(at, Date.now());
    return () => {
      this.#view.setFloat64(at, 0);
      this.#free.push(slot);
    };
  }
}
