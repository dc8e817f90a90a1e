/** Gives back one place in the counter. Works once; further calls do nothing. */
export type Leave = () => void;

/** Named work that holds the drain. */
export interface Hold {
  readonly name: string;
  /** Monotonic milliseconds. */
  readonly startedMs: number;
  /** The id of the request whose handler has entered it. */
  readonly request: string | undefined;
}

const COUNT = 0;
const WATCHED = 1;
const CLOSED = 2;

/** A longer name is a mistake: it is what a person reads in one line of a log. */
const MOST_NAME_CHARACTERS = 128;

/**
 * How much is in flight: requests that are admitted and whose response is not closed, and work that the application
 * holds.
 *
 * The count lives in shared memory and changes through Atomics, so a worker thread that does a request's work can
 * see it and hold it: pass `buffer` to the thread and call `enter()` on an `InFlight` of its own. Names stay in the
 * thread that has given them.
 */
export class InFlight {
  readonly buffer: SharedArrayBuffer;
  readonly #cells: Int32Array;
  /** Those with a name, the oldest first. */
  readonly #holds = new Set<Hold>();
  /** Where they are, too, when this is the counter of a request. */
  readonly #whole: InFlight | undefined;
  readonly #request: string | undefined;

  constructor(
    buffer = new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT),
    { whole, request }: { whole?: InFlight; request?: string } = {},
  ) {
    this.buffer = buffer;
    this.#cells = new Int32Array(buffer);
    this.#whole = whole;
    this.#request = request;
  }

  get count(): number {
    return Atomics.load(this.#cells, COUNT);
  }

  /** What is held by name, the oldest first; of a request's counter, what its handler holds. */
  get holds(): readonly Hold[] {
    return [...this.#holds];
  }

  /** The same counter for the handler of a request: what it holds is told with the request's id. */
  of(request: string): InFlight {
    return new InFlight(this.buffer, { whole: this, request });
  }

  /**
   * Counts one, for work that ends somewhere else than a request does. A stop waits for it until the deadline.
   * @param name what log, status and report call it while a stop waits for it, and when it is cut: `job 17`
   * @throws TypeError when the name is empty or has more than 128 characters; Error when the drain is over
   */
  enter(name?: string): Leave {
    if (name !== undefined) assertName(name);
    this.add();
    // After it is counted: `closeIfIdle` has seen it, or is seen here.
    if (Atomics.load(this.#cells, CLOSED) === 1) {
      this.leave();
      throw new Error('inFlight.enter: the drain is over, and the service waits for nothing that begins now');
    }
    const hold =
      name === undefined ? undefined : { name, startedMs: performance.now(), request: this.#request };
    this.#hold(hold);
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      this.#release(hold);
      this.leave();
    };
  }

  #hold(hold: Hold | undefined): void {
    if (hold === undefined) return;
    this.#holds.add(hold);
    if (this.#whole !== undefined) this.#whole.#hold(hold);
  }

  #release(hold: Hold | undefined): void {
    if (hold === undefined) return;
    this.#holds.delete(hold);
    if (this.#whole !== undefined) this.#whole.#release(hold);
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

  /** From now on `enter` throws, unless something is in flight. @returns how many are */
  closeIfIdle(): number {
    Atomics.store(this.#cells, CLOSED, 1);
    const { count } = this;
    if (count > 0) Atomics.store(this.#cells, CLOSED, 0);
    return count;
  }

  /** From now on `enter` throws. */
  close(): void {
    Atomics.store(this.#cells, CLOSED, 1);
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

function assertName(name: unknown): void {
  if (typeof name === 'string' && name.trim() !== '' && name.length <= MOST_NAME_CHARACTERS) return;
  const got =
    typeof name !== 'string'
      ? typeof name
      : name.length > MOST_NAME_CHARACTERS
        ? `${name.length} characters`
        : JSON.stringify(name);
  throw new TypeError(
    `inFlight.enter: want a name of 1 to ${MOST_NAME_CHARACTERS} characters, not all spaces, got ${got}`,
  );
}
