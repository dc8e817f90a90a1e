import type { Logger } from 'pino';
import { type Config, ConfigError, frozenDifferences } from '../../config/settings.ts';
import { messageOf } from '../../error.ts';
import { keepReloadOutcome, refusalOf } from '../../lifecycle/last-reload.ts';
import type { ShutdownReport } from '../../lifecycle/last-shutdown.ts';
import { drainLine, drainOf } from '../../ops/status.ts';
import type { Notifier } from '../../platform/systemd.ts';
import { Service } from './service.ts';

/** How often the service manager hears how a drain goes. */
const PROGRESS_MS = 1_000;
/** What is asked of it beyond the deadline, for the application's stop() and the flush. */
const LEAVE_MS = 6_000;

/** A service that is a whole process, without a supervisor. */
export class Alone {
  readonly #service: Service;
  readonly #log: Logger;
  readonly #notifier: Notifier;
  readonly #configure: () => { config: Config };
  /** As it was at the start: what a reload cannot change is compared with this. */
  readonly #config: Config;

  constructor(parts: {
    config: Config;
    log: Logger;
    notifier: Notifier;
    configure: () => { config: Config };
  }) {
    this.#config = parts.config;
    this.#log = parts.log;
    this.#notifier = parts.notifier;
    this.#configure = parts.configure;
    this.#service = new Service(parts.config.app ?? {}, parts.config, parts.log);
  }

  get stopped(): Promise<ShutdownReport> {
    return this.#service.stopped;
  }

  async start(): Promise<void> {
    const { stopping } = this.#service;
    if (this.#notifier.listening) stopping.addEventListener('abort', () => this.#tellProgress());
    await this.#service.start();
    if (this.#service.state !== 'running') return;
    this.#notifier.ready();
    this.#notifier.status('Serving');
    const { watchdogMs } = this.#notifier;
    // A loop that turns feeds it, during a drain too: that has a deadline of its own.
    if (watchdogMs !== undefined) setInterval(() => this.#notifier.alive(), watchdogMs / 3).unref();
  }

  #tellProgress(): void {
    this.#notifier.stopping();
    const tell = (): void => {
      const status = this.#service.status();
      this.#notifier.status(drainLine(drainOf(status)));
      this.#notifier.extend((status.shutdown?.remaining_seconds ?? 0) * 1000 + LEAVE_MS);
    };
    tell();
    setInterval(tell, PROGRESS_MS).unref();
  }

  stop(signal: NodeJS.Signals): Promise<ShutdownReport> {
    return this.#service.stop(signal);
  }

  force(signal: NodeJS.Signals): Promise<ShutdownReport> {
    return this.#service.force(signal);
  }

  crash(origin: string, error: unknown): Promise<ShutdownReport> {
    return this.#service.crash(origin, error);
  }

  lose(code: number): void {
    this.#service.lose(code);
  }

  /** Re-reads the settings that can change while running, and reopens files. A mistake in them changes nothing. */
  reload(): void {
    const startedMs = Date.now();
    const beganMs = performance.now();
    this.#log.info('Received signal 1. Reloading settings...');
    let reason = '';
    try {
      if (this.#service.state !== 'running') throw new Error(`the service is ${this.#service.state}`);
      this.#notifier.reloading();
      // First, and whatever becomes of the settings: logrotate has renamed the files and signalled.
      this.#service.reopen();
      const { config } = this.#configure();
      const frozen = frozenDifferences(this.#config, config);
      if (frozen.length > 0)
        throw new ConfigError(frozen.map((name) => `${name}: want a restart to change it`));
      this.#service.reload(config);
      this.#log.info('Settings reloaded');
    } catch (error) {
      reason = refusalOf(error);
      this.#log.error(`Reload refused, the settings stay as they were: ${reason}`);
    }
    if (this.#service.state === 'running') this.#notifier.ready();
    const outcome = {
      outcome: reason === '' ? ('done' as const) : ('refused' as const),
      reason,
      started_ms: startedMs,
      duration_ms: Math.round(performance.now() - beganMs),
      pid: process.pid,
      generation: 1,
    };
    this.#service.noteReload(outcome);
    keepReloadOutcome(this.#config.stateDir, outcome).catch((error: unknown) => {
      this.#log.error(`The outcome of the reload could not be kept: ${messageOf(error)}`);
    });
  }
}
