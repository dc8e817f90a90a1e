import { setMaxListeners } from 'node:events';

export type State = 'starting' | 'running' | 'stopping' | 'stopped';

const LEGAL: Readonly<Record<State, readonly State[]>> = {
  starting: ['running', 'stopping', 'stopped'],
  running: ['stopping'],
  stopping: ['stopped'],
  stopped: [],
};

/** A stop that has been ordered: why, and by when it has to be over. */
export interface StopOrder {
  /** `SIGTERM`, `SIGINT`, `emergency`, `crash`, or what an embedding program has said. */
  readonly reason: string;
  /** Wall-clock time of the order, for people. */
  readonly orderedAt: Date;
  /** Monotonic milliseconds (`performance.now()`) at which new requests are locked out. Later than now in a lame duck. */
  readonly lockAtMs: number;
  /** Monotonic milliseconds at which what is still in flight is cut. */
  readonly deadlineMs: number;
}

/**
 * The one owner of the service's state. Everything else asks it: the gate whether to admit, the routes what to answer,
 * the handlers (through `stopping`) whether to hurry. Nothing keeps a flag beside it.
 */
export class Lifecycle {
  #state: State = 'starting';
  #since = new Date();
  #order: StopOrder | undefined;
  readonly #stopping = new AbortController();

  readonly #changed: (state: State) => void;

  /** @param changed puts each new state on record */
  constructor(changed: (state: State) => void = () => undefined) {
    this.#changed = changed;
    // Every handler in flight may listen; a drain of a thousand requests is no leak.
    setMaxListeners(0, this.#stopping.signal);
  }

  get state(): State {
    return this.#state;
  }

  /** Wall-clock time of the last transition. */
  get since(): Date {
    return this.#since;
  }

  /** The stop that has been ordered, from the signal on: also during the lame duck, while the state is still running. */
  get order(): StopOrder | undefined {
    return this.#order;
  }

  /** Whether a load balancer should send requests: running, and no stop ordered. */
  get ready(): boolean {
    return this.#state === 'running' && this.#order === undefined;
  }

  /** Aborted in the turn of the loop in which the state becomes stopping. */
  get stopping(): AbortSignal {
    return this.#stopping.signal;
  }

  /**
   * Notes a stop. The first order counts, unless a later one locks earlier (an emergency during a lame duck).
   * @returns the order that counts
   */
  orderStop(order: StopOrder): StopOrder {
    if (this.#order === undefined || order.lockAtMs < this.#order.lockAtMs) this.#order = order;
    return this.#order;
  }

  /** Refuses requests from now on. May be called again: a controller locks a worker that has locked itself. */
  lock(): void {
    if (this.#state !== 'stopping') this.to('stopping');
  }

  /** @throws Error when the table above has no such transition: that is a bug, never an input. */
  to(next: State): void {
    if (!LEGAL[this.#state].includes(next))
      throw new Error(`lifecycle: no way from ${this.#state} to ${next}`);
    this.#state = next;
    this.#since = new Date();
    // After the assignment: a listener already finds the gate locked.
    if (next === 'stopping') this.#stopping.abort(new Error('the service is stopping'));
    this.#changed(next);
  }
}
