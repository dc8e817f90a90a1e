/** Gives back one place in the counter. Works once; further calls do nothing. */
export type Leave = () => void;

const COUNT = 0;
const WATCHED = 1;

/**
 * How many requests are in flight: admitted, and their response not closed.
 *
 * The count lives in shared memory and changes through Atomics, so a worker thread that does a request's work can
 * see it and hold it: pass `buffer` to the thread and call `enter()` on an `InFlight` of its own.
 */
export class InFlight {
  readonly buffer: SharedArrayBuffer;
  readonly #cells: Int32Array;

  constructor(buffer = new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT)) {
    this.buffer = buffer;
    this.#cells = new Int32Array(buffer);
  }

  get count(): number {
    return Atomics.load(this.#cells, COUNT);
  }

  /** Counts one, for work that ends somewhere else than a request does. */
  enter(): Leave {
    this.add();
    let inside = true;
    return () => {
      if (inside) this.leave();
      inside = false;
    };
  }

  /** Counts one. Its owner calls `leave` once: the gate counts what it admits, the exchange leaves when it ends. */
  add(): void {
    Atomics.add(this.#cells, COUNT, 1);
  }

  leave(): void {
    const cells = this.#cells;
    // Waking costs a system call, so it is done only for a drain that waits, and only by the last one out.
    if (Atomics.sub(cells, COUNT, 1) === 1 && Atomics.load(cells, WATCHED) === 1)
      Atomics.notify(cells, COUNT);
  }

  /** Resolves when nothing is in flight, whichever thread the last one leaves from. */
  async drained(): Promise<void> {
    // Set before the count is read: a request that leaves after that read finds the mark and wakes us.
    Atomics.store(this.#cells, WATCHED, 1);
    for (;;) {
      const count = this.count;
      if (count === 0) return;
      const wait = Atomics.waitAsync(this.#cells, COUNT, count);
      if (wait.async) await wait.value;
    }
  }
}
