import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { LoopDelayFigures } from '../../ops/status.ts';

/** How often the loop is asked whether it turns. */
const RESOLUTION_MS = 20;
/** Figures cover at least this many looks, five seconds of them: of fewer the 99th percentile is the maximum. */
const LEAST_LOOKS = 250;
/** Figures cover at most this long. */
const WINDOW_MS = 60_000;

/** Watches how late this process's event loop is. It has no timer of JavaScript's, and keeps no process alive. */
export class LoopDelay {
  readonly #histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  #sinceMs = performance.now();
  #last: LoopDelayFigures | null = null;

  begin(): void {
    this.#histogram.enable();
  }

  end(): void {
    this.#histogram.disable();
  }

  /** Null in the first five seconds. */
  read(): LoopDelayFigures | null {
    const { count, max } = this.#histogram;
    if (count >= LEAST_LOOKS)
      this.#last = { delay_p99_ms: lateMs(this.#histogram.percentile(99)), delay_max_ms: lateMs(max) };
    const now = performance.now();
    if (now - this.#sinceMs >= WINDOW_MS) {
      this.#histogram.reset();
      this.#sinceMs = now;
    }
    return this.#last;
  }
}

/** The histogram counts nanoseconds between two looks, so it holds the resolution too. */
function lateMs(nanoseconds: number): number {
  return Math.max(0, Math.round(nanoseconds / 1e5 - RESOLUTION_MS * 10) / 10);
}
