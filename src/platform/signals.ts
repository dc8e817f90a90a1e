import { syncBuiltinESMExports } from 'node:module';
import { constants } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type Deferred, deferred } from './deferred.ts';

/** What a signal or a crash can ask for. Each call only decides and returns; none waits. */
export interface SignalActions {
  stop(signal: NodeJS.Signals): void;
  /** A second Ctrl-C: cut what is in flight and go. */
  force(signal: NodeJS.Signals): void;
  reload(): void;
  /** Continue in new files where the old ones were renamed, and change nothing else. */
  reopen(): void;
  crash(origin: 'uncaughtException' | 'unhandledRejection', error: unknown): void;
  /** Whether a stop is under way: it ends the process itself, and the application's process.exit waits for it. */
  stopping(): boolean;
  /** The process ends before the service does, by the application's order. Nothing can be waited for. */
  exit(code: number): void;
}

/** One of the application's own handlers, which runs. */
export interface OwnHandler {
  /** `SIGTERM handler cleanup` */
  readonly name: string;
  /** Settles with what the handler returns, or when the application asks for the end of the process. */
  readonly done: Promise<void>;
}

/** The signals that are ours. The application's own handlers for them are held back until the drain is over. */
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR2'] as const;
type Signal = (typeof SIGNALS)[number];

/** What a handler gets to end that returned no promise: when it ends cannot be known. */
const UNKNOWN_END_MS = 1_000;

// biome-ignore lint/suspicious/noExplicitAny: each event has arguments of its own
type Listener = (...args: any[]) => unknown;
type Decision = (actions: SignalActions) => void;

/** The number that `kill -l` shows, for the log line people search for. */
export function signalNumber(signal: NodeJS.Signals): number {
  return constants.signals[signal];
}

/**
 * Catches signals from the first moment and keeps what they asked for until a service can act on it. `main`
 * installs it before it imports anything slow: a SIGTERM that comes before a handler exists ends the process by
 * default, without a line in the log.
 *
 * It answers in `process.emit`, in front of all listeners. The application's own would cut what is in flight: most call
 * process.exit, or raise the signal again, which looks like a second Ctrl-C. They run when the drain is over, and until
 * the service has ended process.exit waits for it. No library can take our listener away, because there is none.
 */
export class SignalTrap {
  /** `transparent`: in place, but everything goes its usual way, for a process that may be no service. */
  #mode: 'transparent' | 'trapping' = 'transparent';
  #actions: SignalActions | undefined;
  #log: Logger | undefined;
  readonly #early: Decision[] = [];
  readonly #came = new Set<Signal>();
  /** Set when the application's own handlers run. Resolves when one of them asks for the end of the process. */
  #endAsked: Deferred<void> | undefined;
  /** Handlers that returned no promise. */
  readonly #unknownEnds: string[] = [];

  /** @param mode transparent: from the first moment, but nothing is trapped before `trap` */
  constructor(mode: 'transparent' | 'trapping' = 'trapping') {
    const { emit, exit } = process;
    process.emit = ((name: string | symbol, ...args: unknown[]): boolean => {
      if (this.#mode === 'transparent') return Reflect.apply(emit, process, [name, ...args]);
      if (isOurs(name)) return this.#hear(name);
      // Node would stop listening for a signal without listeners.
      if (name === 'removeListener' && isOurs(args[0])) return true;
      const isCrash = name === 'uncaughtException';
      if (isCrash) this.#decide((actions) => actions.crash(args[1] as 'uncaughtException', args[0]));
      if (name === 'exit') this.#actions?.exit(args[0] as number);
      return Reflect.apply(emit, process, [name, ...args]) || isCrash;
    }) as typeof process.emit;
    process.exit = ((code?: number | string): void => {
      if (this.#actions?.stopping() === true) {
        this.#log?.warn(`The application's process.exit(${code ?? ''}) is held back until the stop is over`);
        this.#endAsked?.resolve();
      } else Reflect.apply(exit, process, [code]);
    }) as typeof process.exit;
    // For those who import them by name.
    syncBuiltinESMExports();
    // Node binds the process.emit that it finds to a signal with the first listener for it, so earlier ones are added anew.
    // Now, not when a server listens: a signal that Node has not told of yet is lost with the last listener.
    for (const signal of SIGNALS) {
      const earlier = process.rawListeners(signal) as Listener[];
      process.removeAllListeners(signal);
      for (const listener of earlier) process.on(signal, listener);
    }
    if (mode === 'trapping') this.trap();
  }

  trap(): void {
    this.#mode = 'trapping';
    const listen = (): void => undefined;
    for (const signal of SIGNALS) process.on(signal, listen).off(signal, listen);
  }

  /** From now on signals reach `actions`; those that came earlier do so now, in their order. */
  deliverTo(actions: SignalActions, log: Logger): void {
    this.#actions = actions;
    this.#log = log;
    for (const decision of this.#early.splice(0)) decision(actions);
  }

  #hear(signal: Signal): true {
    // Handlers that have cleaned up often raise the signal again, to end the process by it.
    if (this.#endAsked !== undefined) this.#endAsked.resolve();
    else if (signal === 'SIGHUP') this.#decide((actions) => actions.reload());
    else if (signal === 'SIGUSR2') this.#decide((actions) => actions.reopen());
    else if (signal === 'SIGINT' && this.#came.has(signal)) this.#decide((actions) => actions.force(signal));
    else this.#decide((actions) => actions.stop(signal));
    this.#came.add(signal);
    for (const listener of hiddenListeners(signal)) listener(signal, signalNumber(signal));
    return true;
  }

  #decide(decision: Decision): void {
    if (this.#actions === undefined) this.#early.push(decision);
    else decision(this.#actions);
  }

  /**
   * The drain is over: runs the application's own handlers for the signals that have come. Where none has told this
   * process to stop, those for the signal that ordered the stop, or for SIGTERM, run too.
   */
  runHandlers(reason = ''): readonly OwnHandler[] {
    const endAsked = deferred<void>();
    this.#endAsked = endAsked;
    if (!this.#came.has('SIGTERM') && !this.#came.has('SIGINT'))
      this.#came.add(reason === 'SIGINT' ? reason : 'SIGTERM');
    // Nest has one handler for all signals.
    const own = new Map<Listener, Signal>();
    for (const signal of this.#came)
      for (const listener of process.listeners(signal)) if (!own.has(listener)) own.set(listener, signal);
    return [...own].map(([listener, signal]) => {
      const name = `${signal} handler ${listener.name || '(anonymous)'}`;
      let returned: unknown;
      const done = (async () => {
        returned = Reflect.apply(listener, process, [signal, signalNumber(signal)]);
        await returned;
      })();
      if (!(returned instanceof Promise)) this.#unknownEnds.push(name);
      return { name, done: Promise.race([done, endAsked.promise]) };
    });
  }

  /**
   * The service has ended: waits for handlers that returned no promise, until they ask for the end of the process,
   * nothing is left that could happen in it, or a second is over. From then on process.exit ends the process.
   */
  async release(): Promise<void> {
    if (this.#unknownEnds.length > 0) {
      const late = delay(UNKNOWN_END_MS, this.#unknownEnds, { ref: false });
      const idle = new Promise((resolve) => process.once('beforeExit', resolve));
      const ended = Promise.race([idle, this.#endAsked?.promise]).then(() => []);
      for (const name of await Promise.race([ended, late]))
        this.#log?.warn(
          `The application's ${name} may not be done: it returned no promise, and its time is over`,
        );
    }
    this.#actions = undefined;
  }
}

/**
 * Listeners that a loader keeps from the application's sight. They run at the signal: tsx's tells its parent that it has
 * come, which kills a child that does not answer within 30 ms.
 */
function hiddenListeners(signal: Signal): Listener[] {
  const shown: readonly unknown[] = process.listeners(signal);
  const raw = process.rawListeners(signal) as (Listener & { readonly listener?: Listener })[];
  return raw.filter((one) => !shown.includes(one.listener ?? one));
}

function isOurs(name: unknown): name is Signal {
  return SIGNALS.some((signal) => signal === name);
}
