import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import type { Status } from '../ops/status.ts';
import { drainLine } from '../ops/summary-line.ts';
import type { Notifier } from '../platform/systemd.ts';
import { FLUSH_MS } from './stop-budget.ts';

/** How often the service manager hears how a drain goes. */
const PROGRESS_MS = 1_000;

/** Tells the service manager (systemd) what the service does. Where there is none, every call does nothing. */
export class ServiceManager {
  readonly #notifier: Notifier;
  readonly #lifecycle: Lifecycle;
  readonly #status: () => Promise<Status>;

  constructor(notifier: Notifier, lifecycle: Lifecycle, status: () => Promise<Status>) {
    this.#notifier = notifier;
    this.#lifecycle = lifecycle;
    this.#status = status;
  }

  reloading(): void {
    if (this.#lifecycle.ready) this.#notifier.reloading();
  }

  /** The service runs, for the first time or after a reload. A stop that was ordered meanwhile has its own words. */
  running(text: string): void {
    if (!this.#lifecycle.ready) return;
    // Before `ready`, which lets `systemctl` return and show it.
    this.#notifier.status(text);
    this.#notifier.ready();
  }

  /**
   * Feeds the watchdog while event loops turn. A drain is not a hang: it has a deadline of its own.
   * @param responsive whether all event loops have turned lately
   */
  feedWatchdog(responsive: () => boolean): void {
    const { watchdogMs } = this.#notifier;
    if (watchdogMs === undefined) return;
    const feed = (): void => {
      if (this.#lifecycle.state === 'stopping' || responsive()) this.#notifier.alive();
    };
    setInterval(feed, watchdogMs / 3).unref();
  }

  /** Reports how a stop goes, and asks for the time that it still takes. @returns ends that */
  stopping(mostMs: number): () => void {
    if (!this.#notifier.listening) return () => undefined;
    this.#notifier.stopping();
    this.#notifier.extend(mostMs + FLUSH_MS);
    const report = async (): Promise<void> => {
      const status = await this.#status();
      this.#notifier.status(drainLine(status));
      this.#notifier.extend((status.shutdown?.remaining_seconds ?? 0) * 1000 + FLUSH_MS + PROGRESS_MS);
    };
    void report();
    const timer = setInterval(() => void report(), PROGRESS_MS);
    return () => clearInterval(timer);
  }
}
