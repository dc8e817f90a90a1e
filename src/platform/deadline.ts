/** The longest delay a timer takes; a longer one would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * Waits for `settled`, at most `ms` milliseconds. The timer is cancelled when the promise settles first.
 * @returns true when the promise was fulfilled in time, false at the deadline.
 * @throws what the promise rejects with, when it rejects in time.
 */
export function within(ms: number, settled: Promise<unknown>): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, Math.min(Math.max(ms, 0), LONGEST_TIMER_MS), false);
    settled.then(
      () => {
        clearTimeout(timer);
        resolve(true);
      },
      (error: unknown) => {
        clearTimeout(timer);
        reject(error);
      },
    );
  });
}

/**
 * Resolves after `ms` milliseconds *and* after the event loop has read its sockets once more. A timer fires before
 * the poll phase, so what arrived meanwhile is not yet seen when it does; `setImmediate` runs right after that phase.
 */
export function afterReading(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(() => setImmediate(resolve), ms);
  });
}

/** `30`, `0.5`, `1.2`: seconds as people write them, from milliseconds. */
export function seconds(ms: number): string {
  return String(Math.round(ms / 100) / 10);
}

/** Resolves when the signal is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
