import { assertReloadable, type Config } from '../../config/settings.ts';
import type { BackendStatus, Closed, CloseLimits, Host, Settings } from '../../control/backend.ts';
import { ExitCode, graverOf } from '../../exit-code.ts';
import { InProcess } from '../in-process/in-process.ts';
import { Forwarder } from './forward.ts';
import { Instances } from './instances.ts';

/**
 * A program of any kind behind the gate of this process: its instances are the application that InProcess starts before
 * it listens and stops after the drain, and what answers in place of routes of ours.
 */
export class Program extends InProcess {
  readonly #instances: Instances;
  #config: Config;

  constructor(host: Host, settings: Settings) {
    const instances = new Instances(host, settings);
    let forwarder: Forwarder | undefined;
    super(host, {
      app: { start: () => instances.start(), stop: () => instances.stop() },
      config: settings.config,
      behind: {
        application: (gate) => {
          forwarder = new Forwarder({ host, gate, instances });
          return forwarder;
        },
        isServed: () => instances.isServed,
        tallies: () => forwarder?.labels.tallies() ?? [],
      },
    });
    this.#instances = instances;
    this.#config = settings.config;
  }

  override get ready(): boolean {
    return this.#instances.isServed;
  }

  override status(): BackendStatus {
    return { ...super.status(), program: this.#instances.status() };
  }

  /** A new instance with the program and the settings on disk; the old one leaves when the new one is ready. */
  override async reload(settings: Settings): Promise<'code and settings'> {
    assertReloadable(this.#config, settings.config, 'program');
    await this.#instances.reload(settings);
    this.#config = settings.config;
    this.configure(settings.config);
    return 'code and settings';
  }

  override stopOrdered(): void {
    this.#instances.stopOrdered();
  }

  override async kill(): Promise<void> {
    await super.kill();
    await this.#instances.stop();
  }

  override async close(limits: CloseLimits): Promise<Closed> {
    const closed = await super.close(limits);
    const exitCode = this.#instances.isForced ? ExitCode.Forced : ExitCode.Ok;
    return { ...closed, exitCode: graverOf(closed.exitCode, exitCode) };
  }
}
