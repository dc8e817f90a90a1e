import { readSync, writeSync } from 'node:fs';
import { openMemoryFile } from '../../platform/memory-file.ts';

/** What each worker says: how many connections it has, has passed on since its start, and has been handed. */
const CELLS = 3;
const [OPEN, PASSED, HANDED] = [0, 1, 2];
const BYTES = CELLS * Uint32Array.BYTES_PER_ELEMENT;
/** A worker may have more than the mean by this factor and this much before it passes connections on. */
const SLACK = { factor: 1.25, connections: 0.5 };

/** Makes the file. @param elsewhere a directory for systems without one in memory @throws the system's error */
export function openSharesFile(workers: number, elsewhere: string): number {
  return openMemoryFile(workers * BYTES, elsewhere);
}

/**
 * How many connections each worker of a generation has, in a file in memory that all of them hold open. They listen on
 * one socket, and the kernel gives a connection to whichever wakes first: when they are idle, nearly all to one.
 */
export class Shares {
  readonly #fd: number;
  readonly #all: Uint32Array;
  readonly #own: Uint32Array;
  readonly #ownAt: number;

  constructor(fd: number, slot: number, workers: number) {
    this.#fd = fd;
    this.#all = new Uint32Array(workers * CELLS);
    this.#own = new Uint32Array(CELLS);
    this.#ownAt = slot * BYTES;
  }

  /** A connection was opened (1) or closed (-1). */
  count(difference: 1 | -1): void {
    this.#add(OPEN, difference);
  }

  /** The controller has handed a connection to this worker. */
  handed(): void {
    this.#add(HANDED, 1);
  }

  /**
   * Whether one connection more would be too many for this worker, so that it has to pass it on. Those that are on
   * their way between workers count. What a worker had that has died counts until it is replaced.
   * @param most how many this worker may have in any case
   */
  mustPassOn(most: number): boolean {
    const all = this.#all;
    readSync(this.#fd, all, 0, all.byteLength, 0);
    let [open, onTheirWay] = [0, 0];
    for (let at = 0; at < all.length; at += CELLS) {
      open += all[at + OPEN] ?? 0;
      onTheirWay += (all[at + PASSED] ?? 0) - (all[at + HANDED] ?? 0);
    }
    const mean = ((open + Math.max(0, onTheirWay) + 1) * CELLS) / all.length;
    if ((this.#own[OPEN] ?? 0) + 1 <= Math.min(most, mean * SLACK.factor + SLACK.connections)) return false;
    this.#add(PASSED, 1);
    return true;
  }

  #add(cell: number, difference: number): void {
    this.#own[cell] = (this.#own[cell] ?? 0) + difference;
    try {
      writeSync(this.#fd, this.#own, 0, BYTES, this.#ownAt);
    } catch {
      // Where there is no memory left, connections are shared less evenly.
    }
  }
}
