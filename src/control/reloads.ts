import type { Logger } from 'pino';
import { messageOf } from '../error.ts';
import { keepReloadOutcome, type ReloadOutcome, refusalOf } from '../lifecycle/last-reload.ts';

/** What reloads work on. */
export interface ReloadParts {
  readonly log: Logger;
  readonly stateDir: string;
  /** Puts new settings and code in place, and says what it did. @throws Error that says why the old ones stay */
  readonly reload: () => Promise<string>;
  readonly generation: () => number;
  readonly began: () => void;
  readonly ended: (outcome: ReloadOutcome) => void;
}

/** One reload at a time. However many are asked for meanwhile, one more follows: it finds what they all want to see. */
export class Reloads {
  readonly counts: Record<ReloadOutcome['outcome'], number> = { done: 0, refused: 0 };
  last: ReloadOutcome | undefined;
  /** When the one that is under way began. */
  startedAt: Date | undefined;
  readonly #parts: ReloadParts;
  #queued = false;

  constructor(parts: ReloadParts) {
    this.#parts = parts;
  }

  ask(): void {
    this.#queued = true;
    if (this.startedAt === undefined) void this.#runQueued();
  }

  async #runQueued(): Promise<void> {
    while (this.#queued) {
      this.#queued = false;
      await this.#run();
    }
  }

  async #run(): Promise<void> {
    const { log, stateDir, reload, generation, began, ended } = this.#parts;
    const startedMs = Date.now();
    this.startedAt = new Date(startedMs);
    const beganMs = performance.now();
    began();
    let done = '';
    let reason = '';
    try {
      done = await reload();
    } catch (error) {
      reason = refusalOf(error);
    }
    const outcome: ReloadOutcome = {
      outcome: reason === '' ? 'done' : 'refused',
      reason,
      started_ms: startedMs,
      duration_ms: Math.round(performance.now() - beganMs),
      pid: process.pid,
      generation: generation(),
    };
    this.counts[outcome.outcome] += 1;
    this.last = outcome;
    this.startedAt = undefined;
    if (reason === '') log.info(`${done}: generation ${outcome.generation} serves`);
    else log.error(`Reload refused, generation ${outcome.generation} goes on serving: ${reason}`);
    ended(outcome);
    try {
      await keepReloadOutcome(stateDir, outcome);
    } catch (error) {
      log.error({ err: error }, `The outcome of the reload could not be kept: ${messageOf(error)}`);
    }
  }
}
