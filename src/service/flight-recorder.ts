import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { CutRequest } from '../lifecycle/shutdown-record.ts';

/** How long the loop may stand still before what is in flight is written down. */
export const STALL_MS = 500;
const BEAT_MS = 200;
/** Requests that are remembered at most; while more are in flight the others go without a name. */
const SLOTS = 512;
const SLOT_BYTES = 256;
/** When it was admitted, as wall-clock milliseconds; 0 for a free slot. Then the length of the text, then the text. */
const TEXT_AT = 10;

/** What the main thread and the recorder's thread share. */
export interface RecorderMemory {
  readonly beats: SharedArrayBuffer;
  readonly slots: SharedArrayBuffer;
}

/** What a record needs of a request. */
export interface Recorded {
  readonly id: string;
  readonly method: string;
  readonly path: string;
}

/**
 * Remembers what is in flight where another thread can read it. When the application blocks the event loop, nothing
 * in this thread runs any more: the other one then writes the names to the supervisor, which can say what it cut.
 */
export class FlightRecorder {
  readonly #beats = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
  readonly #slots = new SharedArrayBuffer(SLOTS * SLOT_BYTES);
  readonly #view = new DataView(this.#slots);
  readonly #bytes = Buffer.from(this.#slots);
  readonly #free = Array.from({ length: SLOTS }, (_, index) => SLOTS - 1 - index);

  /** @param fd where the names are written; @param supervisor the process that reads them */
  constructor(fd: number, supervisor: number) {
    const cell = new Int32Array(this.#beats);
    setInterval(() => {
      Atomics.add(cell, 0, 1);
      Atomics.notify(cell, 0);
    }, BEAT_MS).unref();
    // The same ending as this module's: the source is run as it is in development.
    const file = new URL(`./recorder-thread${extname(import.meta.url)}`, import.meta.url);
    const memory: RecorderMemory = { beats: this.#beats, slots: this.#slots };
    new Worker(file, { workerData: { ...memory, fd, supervisor } }).unref();
  }

  /** Remembers a request; call what is returned when it is over. */
  begin({ id, method, path }: Recorded): () => void {
    const slot = this.#free.pop();
    if (slot === undefined) return () => undefined;
    const at = slot * SLOT_BYTES;
    const length = this.#bytes.write(`${id} ${method} ${path}`, at + TEXT_AT, SLOT_BYTES - TEXT_AT, 'utf8');
    this.#view.setUint16(at + 8, length);
    this.#view.setFloat64(at, Date.now());
    return () => {
      this.#view.setFloat64(at, 0);
      this.#free.push(slot);
    };
  }
}

/** What is remembered, the oldest first. */
export function readSlots(slots: SharedArrayBuffer): CutRequest[] {
  const view = new DataView(slots);
  const bytes = Buffer.from(slots);
  const found: CutRequest[] = [];
  for (let at = 0; at < slots.byteLength; at += SLOT_BYTES) {
    const since = view.getFloat64(at);
    if (since === 0) continue;
    const text = bytes.toString('utf8', at + TEXT_AT, at + TEXT_AT + view.getUint16(at + 8));
    const [id = '', method = '', path = ''] = text.split(' ', 3);
    found.push({ id, method, path, age_ms: Date.now() - since });
  }
  return found.sort((a, b) => b.age_ms - a.age_ms);
}
