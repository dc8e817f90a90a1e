import type { Status } from './status.ts';

/** Five minutes, second by second. */
const MOST_ROWS = 300;
/** A row covers at least this much; changes bring more looks at the status than one a second. */
const SECOND_MS = 950;

/** The columns of a row, in this order. The last five are answers a second. */
export const COLUMNS = ['at', 'in_flight', '2xx', '4xx', '5xx', 'refused', 'unanswered'] as const;
export type Column = (typeof COLUMNS)[number];

/** One second. `at` is when it ended, in wall-clock milliseconds. */
export type Row = readonly number[];

/** The last five minutes, which a page shows from its first moment on. */
export class History {
  /** The oldest first. */
  readonly rows: Row[] = [];
  #before: { readonly atMs: number; readonly counts: readonly number[] } | undefined;

  /** Adds a row when a second is over since the last one. The first call only notes where the counters stand. */
  add({ answers, rejected, in_flight }: Status): Row | undefined {
    const atMs = performance.now();
    const before = this.#before;
    const elapsedMs = atMs - (before?.atMs ?? Number.NEGATIVE_INFINITY);
    if (elapsedMs < SECOND_MS) return undefined;
    const succeeded = answers['1xx'] + answers['2xx'] + answers['3xx'];
    const counts = [succeeded, answers['4xx'], answers['5xx'], rejected.total, answers.none];
    this.#before = { atMs, counts };
    const rates = counts.map((count, index) => {
      const more = Math.max(0, count - (before?.counts[index] ?? count));
      return Math.round((more / elapsedMs) * 10_000) / 10;
    });
    const row = [Date.now(), in_flight.count, ...rates];
    this.rows.push(row);
    if (this.rows.length > MOST_ROWS) this.rows.shift();
    return row;
  }
}
