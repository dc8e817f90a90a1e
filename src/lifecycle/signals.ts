import { constants } from 'node:os';

/** What a signal or a crash can ask for. Each call only decides and returns; none waits. */
export interface SignalActions {
  stop(signal: NodeJS.Signals): void;
  /** A second Ctrl-C: cut what is in flight and go. */
  force(signal: NodeJS.Signals): void;
  reload(): void;
  crash(origin: 'uncaughtException' | 'unhandledRejection', error: unknown): void;
}

type Decision = (actions: SignalActions) => void;

/** The number that `kill -l` shows, for the log line people search for. */
export function signalNumber(signal: NodeJS.Signals): number {
  return constants.signals[signal];
}

/**
 * Catches the signals from the first moment on and keeps what they decided until somebody can act on it. `main`
 * installs it before it imports anything slow: a SIGTERM that comes before a handler exists ends the process by
 * default, without a line in the log.
 */
export class SignalTrap {
  #actions: SignalActions | undefined;
  readonly #early: Decision[] = [];
  #interrupts = 0;

  constructor() {
    process.on('SIGTERM', () => this.#decide((actions) => actions.stop('SIGTERM')));
    process.on('SIGINT', () => {
      this.#interrupts += 1;
      const again = this.#interrupts > 1;
      this.#decide((actions) => (again ? actions.force('SIGINT') : actions.stop('SIGINT')));
    });
    process.on('SIGHUP', () => this.#decide((actions) => actions.reload()));
    process.on('uncaughtException', (error, origin) =>
      this.#decide((actions) => actions.crash(origin, error)),
    );
  }

  /** From now on signals reach `actions`; those that came earlier do so now, in their order. */
  deliverTo(actions: SignalActions): void {
    this.#actions = actions;
    for (const decision of this.#early.splice(0)) decision(actions);
  }

  #decide(decision: Decision): void {
    if (this.#actions === undefined) this.#early.push(decision);
    else decision(this.#actions);
  }
}
