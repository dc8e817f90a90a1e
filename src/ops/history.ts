import type { Status } from './status.ts';

/** How far back a page sees: five minutes, second by second. */
const SECONDS = 300;
/** Two looks closer than this are one second. */
const SECOND_MS = 950;

/** What is kept of each second, in this order. The last five are answers a second. */
export const COLUMNS = ['at', 'in_flight', '2xx', '4xx', '5xx', 'refused', 'unanswered'] as const;
export type Column = (typeof COLUMNS)[number];

/** One second: when it ended, in wall-clock milliseconds, and what was counted in it. */
export type Row = readonly number[];

/** The last five minutes, in a memory that does not grow: it is there before anybody looks. */
export class History {
  readonly #columns = COLUMNS.map(() => new Float64Array(SECONDS));
  #added = 0;
  #before: { readonly atMs: number; readonly counts: readonly number[] } | undefined;

  /** Notes a second, when one is over since the last: answers a second are what has been added since then. */
  add(status: Status): Row | undefined {
    const atMs = performance.now();
    const before = this.#before;
    const elapsedMs = atMs - (before?.atMs ?? Number.NEGATIVE_INFINITY);
    if (elapsedMs < SECOND_MS) return undefined;
    const counts = countsOf(status);
    this.#before = { atMs, counts };
    // Counted since the start: the first look only says from where.
    const rates = counts.map((count, index) => {
      const more = Math.max(0, count - (before?.counts[index] ?? count));
      return Math.round((more / elapsedMs) * 10_000) / 10;
    });
    const row = [Date.now(), status.in_flight.count, ...rates];
    const slot = this.#added % SECONDS;
    for (const [index, column] of this.#columns.entries()) column[slot] = row[index] ?? 0;
    this.#added += 1;
    return row;
  }

  /** All of it, the oldest first. */
  rows(): Row[] {
    const length = Math.min(this.#added, SECONDS);
    return Array.from({ length }, (_, index) => {
      const slot = (this.#added - length + index) % SECONDS;
      return this.#columns.map((column) => column[slot] ?? 0);
    });
  }
}

function countsOf({ answers, rejected }: Status): number[] {
  const succeeded = answers['1xx'] + answers['2xx'] + answers['3xx'];
  return [succeeded, answers['4xx'], answers['5xx'], rejected.total, answers.none];
}
