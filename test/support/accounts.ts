import { readFileSync } from 'node:fs';
import type { Ledger } from './ledger.ts';

/** What the service has noted of one request, as far as it matters here. */
export interface Recorded {
  readonly path: string;
  readonly status: number;
  readonly outcome: string;
}

/** Numbers of requests on which the accounts differ. All empty: they agree. */
export interface Differences {
  /** No answer came. */
  readonly lost: readonly number[];
  /** Answered with 200, and the audit log knows nothing of it. */
  readonly answeredNotRecorded: readonly number[];
  /** Recorded as completed with 200, and the client has no such answer. */
  readonly recordedNotAnswered: readonly number[];
  /** Refused with a 503 that says it was never dispatched, and yet the application has seen it, or the audit log. */
  readonly refusedButDispatched: readonly number[];
  /** No answer came, and yet the application has seen it, or the audit log: nobody can know whether to send it again. */
  readonly lostButDispatched: readonly number[];
  /** Seen by the application more than once. */
  readonly dispatchedTwice: readonly number[];
}

/**
 * Holds three accounts of one load against each other: the clients', the audit log's, and the application's own.
 * @param numberOf the number of the request that has this path
 */
export function compare(
  ledger: Ledger,
  records: readonly Recorded[],
  dispatched: readonly number[],
  numberOf: (path: string) => number,
): Differences {
  const seen = new Set(dispatched);
  const admitted = new Set(records.map(({ path }) => numberOf(path)));
  const completed = new Set(
    records
      .filter(({ status, outcome }) => status === 200 && outcome === 'completed')
      .map(({ path }) => numberOf(path)),
  );
  const answered = ledger.answers(200).map(({ number }) => number);
  const known = new Set(answered);
  const lost = ledger.entries.filter((entry) => entry.lost !== undefined).map(({ number }) => number);
  return {
    lost,
    answeredNotRecorded: answered.filter((number) => !completed.has(number)),
    recordedNotAnswered: [...completed].filter((number) => !known.has(number)),
    refusedButDispatched: ledger
      .answers(503)
      .map(({ number }) => number)
      .filter((number) => seen.has(number) || admitted.has(number)),
    lostButDispatched: lost.filter((number) => seen.has(number) || admitted.has(number)),
    dispatchedTwice: repeated(dispatched),
  };
}

/** The requests on record, in the order in which they have ended. */
export function requestsIn(auditLog: string): Recorded[] {
  return readFileSync(auditLog, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Recorded & { type: string })
    .filter(({ type }) => type === 'request');
}

function repeated(numbers: readonly number[]): number[] {
  const once = new Set<number>();
  return numbers.filter((number) => once.size === once.add(number).size);
}
