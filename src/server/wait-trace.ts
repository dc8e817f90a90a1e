import { AsyncLocalStorage, createHook, executionAsyncId } from 'node:async_hooks';
import { CODE } from '../version.ts';
import type { Exchange } from './exchange.ts';

/** Of one request, the newest promises that are followed; older ones are forgotten. */
const MOST_PROMISES = 256;
/** How deep a stack is remembered, and how much of it is told: the calls nearest to the wait. */
const MOST_FRAMES = 24;
const MOST_TOLD = 8;

/** A promise that is not settled, or an `await` that has not gone on. */
class Wait {
  /** The promise that it waits for; undefined for one that is settled by code: of an async function, of `new Promise`. */
  readonly on: number | undefined;
  // Written by captureStackTrace, and formatted only when it is read.
  readonly stack?: unknown;

  constructor(on: number | undefined) {
    this.on = on;
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = MOST_FRAMES;
    Error.captureStackTrace(this);
    Error.stackTraceLimit = stackTraceLimit;
  }

  get frames(): string[] {
    const lines = typeof this.stack === 'string' ? this.stack.split('\n') : [];
    const frames = lines.filter((line) => line.startsWith('    at ')).map((line) => line.slice(7));
    // Above it are this module, and what has called it.
    const first = frames.findIndex((frame) => !frame.includes(CODE.href) && !frame.includes('/async_hooks:'));
    return frames.slice(first);
  }

  /** Whether it is the promise of an async function of the application: what that waits for is another wait. */
  get isCall(): boolean {
    const [made = '<anonymous>'] = this.frames;
    return this.on === undefined && isApplication(made);
  }
}

/** Of a request that is being served, by the number that async_hooks gives each promise. */
type Waits = Map<number, Wait>;

/**
 * Tells where the handler of a request waits. It remembers the stack of each `await` and of each promise made while the
 * request is served, which is costly: there is one only with DRAIN_TRACE. What waits for a callback leaves no trace.
 */
export class WaitTrace {
  readonly #current = new AsyncLocalStorage<Waits>();
  readonly #of = new Map<Exchange, Waits>();
  /** Of which request a promise is. */
  readonly #owners = new Map<number, Waits>();
  readonly #hook = createHook({
    init: (id, type, trigger) => {
      const waits = type === 'PROMISE' ? this.#current.getStore() : undefined;
      if (waits !== undefined) this.#note(waits, id, trigger);
    },
    // Also of an await, once it has gone on.
    promiseResolve: (id) => this.#over(id),
  }).enable();

  /** Serves a request. */
  run(exchange: Exchange, serve: () => void): void {
    const waits: Waits = new Map();
    this.#of.set(exchange, waits);
    this.#current.run(waits, serve);
  }

  #note(waits: Waits, id: number, trigger: number): void {
    // What has been made by other code than by a promise is said to be triggered by what runs.
    const on = trigger === executionAsyncId() ? undefined : trigger;
    waits.set(id, new Wait(on));
    this.#owners.set(id, waits);
    const [oldest] = waits.keys();
    if (waits.size <= MOST_PROMISES || oldest === undefined) return;
    waits.delete(oldest);
    this.#owners.delete(oldest);
  }

  #over(id: number): void {
    const waits = this.#owners.get(id);
    if (waits === undefined) return;
    waits.delete(id);
    this.#owners.delete(id);
  }

  /** The calls of the application that led to its last wait, the innermost first; none when it awaits nothing. */
  of(exchange: Exchange): readonly string[] {
    const waits = this.#of.get(exchange) ?? new Map<number, Wait>();
    const newest = [...waits.values()].reverse();
    const last = newest.find(({ on }) => on !== undefined && waits.get(on)?.isCall !== true);
    return (last ?? newest[0])?.frames.filter(isApplication).slice(0, MOST_TOLD) ?? [];
  }

  /** The request is over: what its handler still does is followed no more. */
  ended(exchange: Exchange): void {
    for (const id of this.#of.get(exchange)?.keys() ?? []) this.#owners.delete(id);
    this.#of.delete(exchange);
  }

  end(): void {
    this.#hook.disable();
  }
}

function isApplication(frame: string): boolean {
  return !frame.includes('node:') && !frame.includes('<anonymous>') && !frame.includes(CODE.href);
}
