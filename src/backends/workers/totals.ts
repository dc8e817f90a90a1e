import type { MetricsSnapshot } from '../../ops/metrics.ts';
import type { Status } from '../../ops/status.ts';

type TallySnapshot = MetricsSnapshot['tallies'][number];

/** What workers that have left had counted: a counter must not fall because a process has gone. */
export interface Departed {
  readonly tallies: readonly TallySnapshot[];
  readonly cut: number;
  readonly rejected: Status['rejected'];
}

export const NOBODY: Departed = {
  tallies: [],
  cut: 0,
  rejected: { total: 0, starting: 0, stopping: 0, overloaded: 0 },
};

/** Adds what a worker had counted to what others before it had, and what was lost with it. */
export function addDeparted(
  sum: Departed,
  { tallies, cut, status }: MetricsSnapshot,
  lost: readonly unknown[],
): Departed {
  return {
    tallies: sumTallies([...sum.tallies, ...tallies]),
    cut: sum.cut + cut + lost.length,
    rejected: sumRejected([sum.rejected, status.rejected]),
  };
}

/** One row for each method and route, whichever worker has counted it. */
export function sumTallies(tallies: readonly TallySnapshot[]): TallySnapshot[] {
  const rows = new Map<string, TallySnapshot>();
  for (const tally of tallies) {
    const key = `${tally.method} ${tally.route}`;
    const row = rows.get(key);
    rows.set(key, row === undefined ? tally : add(row, tally));
  }
  return [...rows.values()];
}

function add(a: TallySnapshot, b: TallySnapshot): TallySnapshot {
  return {
    ...a,
    classes: a.classes.map((count, index) => count + (b.classes[index] ?? 0)),
    buckets: a.buckets.map((count, index) => count + (b.buckets[index] ?? 0)),
    sumSeconds: a.sumSeconds + b.sumSeconds,
  };
}

/** Of several event loops the one that is latest. */
export function latestLoop(snapshots: readonly MetricsSnapshot[]): Status['event_loop'] {
  const all = snapshots.flatMap(({ status: { event_loop } }) => (event_loop === null ? [] : [event_loop]));
  return all.sort((a, b) => b.delay_max_ms - a.delay_max_ms)[0] ?? null;
}

export function sumRejected(all: readonly Status['rejected'][]): Status['rejected'] {
  const sum = { ...NOBODY.rejected };
  for (const one of all) {
    sum.total += one.total;
    sum.starting += one.starting;
    sum.stopping += one.stopping;
    sum.overloaded += one.overloaded;
  }
  return sum;
}
