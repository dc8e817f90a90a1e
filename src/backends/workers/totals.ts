import type { BackendStatus, Closed } from '../../control/backend.ts';
import { ExitCode } from '../../exit-code.ts';
import { type LoopDelayFigures, OLDEST, type OpenWork } from '../../ops/status.ts';
import type { TallySnapshot } from '../../server/tally.ts';

/** What workers that have left had counted: a counter must not fall because a process has gone. */
export type Departed = Pick<BackendStatus, 'tallies' | 'cut' | 'rejected'>;

export const NOBODY: Departed = {
  tallies: [],
  cut: 0,
  rejected: { total: 0, starting: 0, stopping: 0, overloaded: 0 },
};

/** Adds what a worker had counted to what others before it had, and what was lost with it. */
export function addDeparted(sum: Departed, last: BackendStatus, lost: number): Departed {
  return {
    tallies: sumTallies([...sum.tallies, ...last.tallies]),
    cut: sum.cut + last.cut + lost,
    rejected: sumRejected([sum.rejected, last.rejected]),
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

/** What all of them have in flight. */
export function sumWork(all: readonly OpenWork[]): OpenWork {
  const oldest = <T extends { readonly age_ms: number }>(pick: (work: OpenWork) => readonly T[]): T[] =>
    all
      .flatMap(pick)
      .sort((a, b) => b.age_ms - a.age_ms)
      .slice(0, OLDEST);
  return {
    count: all.reduce((total, { count }) => total + count, 0),
    oldest: oldest(({ oldest }) => oldest),
    holds: oldest(({ holds }) => holds),
  };
}

/** Of several event loops the one that is latest. */
export function latestLoop(statuses: readonly BackendStatus[]): LoopDelayFigures | null {
  const all = statuses.flatMap(({ event_loop }) => (event_loop === null ? [] : [event_loop]));
  return all.sort((a, b) => b.delay_max_ms - a.delay_max_ms)[0] ?? null;
}

export function sumRejected(all: readonly BackendStatus['rejected'][]): BackendStatus['rejected'] {
  const sum = { ...NOBODY.rejected };
  for (const one of all) {
    sum.total += one.total;
    sum.starting += one.starting;
    sum.stopping += one.stopping;
    sum.overloaded += one.overloaded;
  }
  return sum;
}

/** From the gravest on. */
const GRAVEST = [ExitCode.AuditLost, ExitCode.Forced, ExitCode.Internal];

/** How all of them have ended. */
export function sumClosed(all: readonly Closed[]): Closed {
  const sum = (pick: (closed: Closed) => number): number =>
    all.reduce((total, closed) => total + pick(closed), 0);
  return {
    completed: sum(({ completed }) => completed),
    aborted: sum(({ aborted }) => aborted),
    closed: sum(({ closed }) => closed),
    refused: sum(({ refused }) => refused),
    cut: all.flatMap(({ cut }) => cut),
    exitCode: GRAVEST.find((code) => all.some(({ exitCode }) => exitCode === code)) ?? ExitCode.Ok,
  };
}
