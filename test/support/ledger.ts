/** How a request ended without an answer: by the peer's FIN, by our time-out, or by an error such as ECONNRESET. */
export type Loss = 'fin' | 'timeout' | string;

/** One request that was written to an open connection. Times are monotonic milliseconds. */
export interface Entry {
  /** Which of the load's requests it is, from 0. */
  readonly number: number;
  /** When it should have been sent; earlier than `sentMs` when no connection was free or could be opened. */
  readonly dueMs: number;
  readonly sentMs: number;
  /** When the last byte of the answer came, or when it was clear that none would. */
  endedMs: number | undefined;
  status: number | undefined;
  lost: Loss | undefined;
}

/** A connection that could not be opened. No request was sent on it, so none was lost. */
export interface RefusedConnection {
  /** When the request was due that it was opened for; monotonic milliseconds. */
  readonly dueMs: number;
  /** The error's code. */
  readonly how: Loss;
}

/** The account of a load: every request that was sent, with what became of it. */
export class Ledger {
  readonly entries: Entry[] = [];
  readonly refusals: RefusedConnection[] = [];
  /** Connections that were opened. */
  connections = 0;
  /** Requests that were due and never sent, because no connection was to be had. */
  unsent = 0;
  /** Requests that were sent once more, because it was safe. */
  resent = 0;

  get sent(): number {
    return this.entries.length;
  }

  get answered(): number {
    return this.entries.filter(({ status }) => status !== undefined).length;
  }

  get lost(): number {
    return this.entries.filter(({ lost }) => lost !== undefined).length;
  }

  /** Answers by status. */
  get statuses(): ReadonlyMap<number, number> {
    return tally(this.entries.map(({ status }) => status));
  }

  /** Connections that could not be opened, by error code. */
  get refused(): ReadonlyMap<Loss, number> {
    return tally(this.refusals.map(({ how }) => how));
  }

  /** What was lost, by how. */
  get losses(): ReadonlyMap<Loss, number> {
    return tally(this.entries.map(({ lost }) => lost));
  }

  /** The first answer with this status. */
  first(status: number): Entry | undefined {
    return this.answers(status).reduce<Entry | undefined>(
      (first, entry) => (first === undefined || endOf(entry) < endOf(first) ? entry : first),
      undefined,
    );
  }

  answers(status: number): Entry[] {
    return this.entries.filter((entry) => entry.status === status);
  }

  /** @throws Error when an entry has no end, or two */
  reconcile(): this {
    const open = this.sent - this.answered - this.lost;
    const twice = this.entries.some(({ status, lost }) => status !== undefined && lost !== undefined);
    if (open !== 0 || twice) throw new Error(`ledger: ${this}, which leaves ${open}`);
    return this;
  }

  toString(): string {
    const statuses = [...this.statuses].map(([status, count]) => `${count} x ${status}`).join(', ');
    const losses = [...this.losses].map(([how, count]) => `${count} x ${how}`).join(', ');
    return (
      `${this.sent} sent = ${this.answered} answered${statuses && ` (${statuses})`}` +
      ` + ${this.lost} lost${losses && ` (${losses})`}`
    );
  }
}

function endOf({ endedMs }: Entry): number {
  return endedMs ?? Number.POSITIVE_INFINITY;
}

function tally<T>(values: readonly (T | undefined)[]): Map<T, number> {
  const counts = new Map<T, number>();
  for (const value of values) if (value !== undefined) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}
