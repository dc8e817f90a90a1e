/** Upper bounds of the duration histogram in seconds, as Prometheus' client libraries suggest them for HTTP. */
export const BUCKETS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const;

const BOUNDS_MS = BUCKETS.map((bound) => bound * 1000);

/** What a tally has counted, as plain data that can cross to another process. */
export interface TallySnapshot {
  readonly method: string;
  /** The route's pattern, never the path: a label with one value a client can choose is a leak of memory. */
  readonly route: string;
  /** Answers by first digit of their status; index 0 counts requests that ended without an answer. */
  readonly classes: readonly number[];
  /** Answers by duration, one cell per bucket and one for all that took longer. Not cumulative. */
  readonly buckets: readonly number[];
  readonly sumSeconds: number;
}

/** Counts the answers of one route in plain integers; metrics read it when they are scraped. */
export class Tally {
  readonly #classes = [0, 0, 0, 0, 0, 0];
  readonly #buckets: number[] = new Array(BOUNDS_MS.length + 1).fill(0);
  #sumMs = 0;

  /** @param status the answer's status code, or 0 when there was none */
  count(status: number, durationMs: number): void {
    const digit = (status / 100) | 0;
    this.#classes[digit] = (this.#classes[digit] ?? 0) + 1;
    let cell = 0;
    while (cell < BOUNDS_MS.length && durationMs > (BOUNDS_MS[cell] as number)) cell += 1;
    this.#buckets[cell] = (this.#buckets[cell] as number) + 1;
    this.#sumMs += durationMs;
  }

  snapshot(method: string, route: string): TallySnapshot {
    return {
      method,
      route,
      classes: [...this.#classes],
      buckets: [...this.#buckets],
      sumSeconds: this.#sumMs / 1000,
    };
  }
}
