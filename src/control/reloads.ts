import type { Logger } from 'pino';
import { messageOf } from '../error.ts';
import { keepReloadOutcome, type ReloadOutcome, refusalOf, reloadLine } from '../lifecycle/last-reload.ts';
import { oneAtATime } from '../platform/one-at-a-time.ts';

export interface ReloadParts {
  readonly log: Logger;
  readonly stateDir: string;
  /** Puts new settings and code in place. @returns what is new @throws Error that says why the old ones stay */
  readonly reload: () => Promise<ReloadOutcome['what']>;
  readonly generation: () => number;
  readonly began: () => void;
  readonly ended: (outcome: ReloadOutcome) => void;
}

/** Reloads one at a time, and keeps how they went. */
export class Reloads {
  readonly counts: Record<ReloadOutcome['outcome'], number> = { done: 0, refused: 0 };
  last: ReloadOutcome | undefined;
  /** When the reload under way began. */
  startedAt: Date | undefined;
  readonly ask: () => Promise<void>;

  constructor(parts: ReloadParts) {
    this.ask = oneAtATime(() => this.#run(parts));
  }

  async #run({ log, stateDir, reload, generation, began, ended }: ReloadParts): Promise<void> {
    this.startedAt = new Date();
    const started_ms = this.startedAt.getTime();
    const beganMs = performance.now();
    began();
    let what: ReloadOutcome['what'] = 'nothing';
    let reason = '';
    try {
      what = await reload();
    } catch (error) {
      reason = refusalOf(error);
    }
    const outcome: ReloadOutcome = {
      outcome: reason === '' ? 'done' : 'refused',
      what,
      reason,
      started_ms,
      duration_ms: Math.round(performance.now() - beganMs),
      pid: process.pid,
      generation: generation(),
    };
    this.counts[outcome.outcome] += 1;
    this.last = outcome;
    this.startedAt = undefined;
    log[reason === '' ? 'info' : 'error'](reloadLine(outcome));
    ended(outcome);
    try {
      await keepReloadOutcome(stateDir, outcome);
    } catch (error) {
      log.error({ err: error }, `The outcome of the reload could not be kept: ${messageOf(error)}`);
    }
  }
}
