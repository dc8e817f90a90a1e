import { constants } from 'node:os';

/** What a signal or a crash can ask for. Each call only decides and returns; none waits. */
export interface SignalActions {
  stop(signal: NodeJS.Signals): void;
  /** A second Ctrl-C: cut what is in flight and go. */
  force(signal: NodeJS.Signals): void;
  reload(): void;
  /** Continue in new files where the old ones were renamed, and change nothing else. */
  reopen(): void;
  crash(origin: 'uncaughtException' | 'unhandledRejection', error: unknown): void;
  /** The process ends before the service does, by the application's order. Nothing can be waited for. */
  exit(code: number): void;
}

// biome-ignore lint/suspicious/noExplicitAny: each event has arguments of its own
type Listener = (...args: any[]) => void;
type Decision = (actions: SignalActions) => void;

/** The number that `kill -l` shows, for the log line people search for. */
export function signalNumber(signal: NodeJS.Signals): number {
  return constants.signals[signal];
}

/**
 * Catches signals from the first moment and keeps what they asked for until a service can act on it. `main`
 * installs it before it imports anything slow: a SIGTERM that comes before a handler exists ends the process by
 * default, without a line in the log.
 */
export class SignalTrap {
  #actions: SignalActions | undefined;
  readonly #early: Decision[] = [];
  readonly #kept = new Map<string | symbol, Listener>();
  #interrupts = 0;

  constructor() {
    this.#keep('SIGTERM', () => this.#decide((actions) => actions.stop('SIGTERM')));
    this.#keep('SIGINT', () => {
      this.#interrupts += 1;
      const again = this.#interrupts > 1;
      this.#decide((actions) => (again ? actions.force('SIGINT') : actions.stop('SIGINT')));
    });
    this.#keep('SIGHUP', () => this.#decide((actions) => actions.reload()));
    this.#keep('SIGUSR2', () => this.#decide((actions) => actions.reopen()));
    this.#keep('uncaughtException', (error: Error, origin: NodeJS.UncaughtExceptionOrigin) =>
      this.#decide((actions) => actions.crash(origin, error)),
    );
    this.#keep('exit', (code: number) => this.#actions?.exit(code));
    process.on('removeListener', (name: string | symbol, listener: Listener) => {
      if (this.#kept.get(name) === listener) process.on(name as 'exit', listener);
    });
    // Without a name it takes away also what would tell us, and what makes Node listen for signals again.
    const removeAll = process.removeAllListeners;
    process.removeAllListeners = (name?: string | symbol) => {
      const inner = ['newListener', 'removeListener'];
      const names = name === undefined ? process.eventNames() : [name];
      for (const one of names)
        if (name !== undefined || !inner.includes(String(one))) removeAll.call(process, one);
      return process;
    };
  }

  /** Listens again after the application has removed listeners: some libraries remove those of others too. */
  #keep(name: string, listener: Listener): void {
    this.#kept.set(name, listener);
    process.on(name as 'exit', listener);
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
