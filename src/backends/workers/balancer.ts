import type { Socket } from 'node:net';
import { BEAT_MS } from './messages.ts';
import type { WorkerHandle } from './worker-handle.ts';

/** Connections that wait for a worker, while there is none. */
const MOST_WAITING = 1_024;

/** The workers that connections can be given to. */
export interface BalancerWorkers {
  readonly serving: readonly WorkerHandle[];
  /** Every process alive, also those that leave. */
  readonly all: ReadonlySet<WorkerHandle>;
  readonly stopping: boolean;
}

/** Gives connections to the workers in turn, and keeps them for a while when no worker can take them. */
export class Balancer {
  readonly #workers: BalancerWorkers;
  #waiting: Socket[] = [];
  #turn = 0;

  constructor(workers: BalancerWorkers) {
    this.#workers = workers;
  }

  /**
   * Gives a connection to the next worker, one whose loop turns if there is one.
   * @param by the worker that has passed it on: another one is meant
   */
  give(socket: Socket, by?: WorkerHandle): void {
    const worker = this.#next(by);
    if (worker !== undefined) worker.hand(socket);
    else if (this.#waiting.length < MOST_WAITING && !this.#workers.stopping) this.#waiting.push(socket);
    else socket.destroy();
  }

  giveWaiting(): void {
    for (const socket of this.#waiting.splice(0)) this.give(socket);
  }

  dropWaiting(): void {
    for (const socket of this.#waiting.splice(0)) socket.destroy();
  }

  #next(by: WorkerHandle | undefined): WorkerHandle | undefined {
    const { serving, all, stopping } = this.#workers;
    const ready = serving.filter(({ isReady }) => isReady);
    const fresh = ready.filter(({ heardMs }) => performance.now() - heardMs < 2 * BEAT_MS);
    const others = fresh.filter((worker) => worker !== by);
    const candidates = others.length > 0 ? others : fresh.length > 0 ? fresh : ready;
    this.#turn += 1;
    return (
      candidates[this.#turn % candidates.length] ??
      // During a stop there may be workers left that retire or were not appointed yet: they answer with 503.
      (stopping ? [...all].find(({ canTake }) => canTake) : undefined)
    );
  }
}
