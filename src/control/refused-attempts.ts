import type { Logger } from 'pino';
import type { Attempt } from '../ops/admin.ts';

/** How long attempts of one kind are counted before one line sums them up. */
const SUMMARY_MS = 10_000;

/** Tells the log of refused uses of the administrator's routes: the first of a kind at once, a flood in one line. */
export class RefusedAttempts {
  readonly #log: Logger;
  /** Those that came after the first one, by kind. */
  readonly #more = new Map<Attempt, number>();

  constructor(log: Logger) {
    this.#log = log;
  }

  note(attempt: Attempt, address: string): void {
    const more = this.#more.get(attempt);
    this.#more.set(attempt, more === undefined ? 0 : more + 1);
    if (more !== undefined) return;
    this.#log.warn(`Administrator's route used from ${address}: ${attempt}`);
    setTimeout(() => this.#sumUp(attempt), SUMMARY_MS).unref();
  }

  #sumUp(attempt: Attempt): void {
    const more = this.#more.get(attempt) ?? 0;
    this.#more.delete(attempt);
    if (more > 0)
      this.#log.warn({ attempts: more }, `Administrator's route refused ${more} more times: ${attempt}`);
  }
}
