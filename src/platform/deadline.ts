/** The longest delay a timer takes; a longer one would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * Waits for `settled`, at most `ms` milliseconds and never less: a timer knows whole milliseconds alone and may fire
 * almost two of them early, so such a one is set again. The timer is cancelled when the promise settles first.
 * @returns true when the promise was fulfilled in time, false at the deadline.
 * @throws what the promise rejects with, when it rejects in time.
 */
export function within(ms: number, settled: Promise<unknown>): Promise<boolean> {
  const endMs = performance.now() + ms;
  return new Promise((resolve, reject) => {
    let timer = setTimeout(expire, delay(ms));
    function expire(): void {
      const leftMs = endMs - performance.now();
      if (leftMs > 0) timer = setTimeout(expire, delay(leftMs));
      else resolve(false);
    }
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

function delay(ms: number): number {
  return Math.min(Math.max(ms, 0), LONGEST_TIMER_MS);
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
