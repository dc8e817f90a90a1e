import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import { type App, asApp, asHooks, type Hooks } from './app/app.ts';
import { AdoptedServers } from './backends/in-process/adopted-servers.ts';
import { InProcess } from './backends/in-process/in-process.ts';
import { explain } from './cli/explain.ts';
import { type Config, completeConfig } from './config/settings.ts';
import { Controller } from './control/controller.ts';
import { ExitCode, StartError } from './exit-code.ts';
import type { ShutdownReport } from './lifecycle/last-shutdown.ts';
import type { State } from './lifecycle/lifecycle.ts';
import type { Status } from './ops/status.ts';
import { aborted } from './platform/deadline.ts';
import { endProcess } from './platform/end-process.ts';
import { addressOf } from './platform/listen.ts';
import { flushLog } from './platform/log-output.ts';
import { createLogger } from './platform/logger.ts';
import { SignalTrap } from './platform/signals.ts';
import type { Notifier } from './platform/systemd.ts';
import { holdConnections } from './server/hold-connections.ts';

const ending = new AbortController();

export interface ServiceOptions {
  /** The routes, and what they need. Without it the service has its own routes alone. */
  readonly app?: App;
  /** Settings by property (`shutdownTimeoutMs: 5000`); the rest have their defaults. Of the environment, only `LOG_LEVEL` is read. */
  readonly config?: Partial<Config>;
  /**
   * A pino logger of your own: its level, format and destination are yours. Default: one that writes to standard output,
   * with `logLevel` (else `LOG_LEVEL` of the environment) and `logFormat`.
   */
  readonly log?: Logger;
  /**
   * Whether SIGTERM, SIGINT, SIGHUP and crashes are the service's: the process then ends with it, by the exit code of
   * its report, and the program's own handlers for these signals run after the drain. Default: false.
   */
  readonly signals?: boolean;
}

/**
 * A service inside another program or a test. Without `signals` it handles none and never ends the process: call
 * `start()`, and later `stop()`.
 * @throws ConfigError that lists all mistakes in `config`; StartError when `app` has another shape
 */
export function createService({
  app = {},
  config: partial = {},
  log,
  signals = false,
}: ServiceOptions = {}): Service {
  const config = completeConfig(partial, process.env);
  const ready = Object.keys(app).length === 0 ? app : asApp(app, 'the app');
  return new Service({ app: ready, config, log, signals: signals ? new SignalTrap() : undefined });
}

/**
 * Settings by property as in `ServiceOptions`, the rest of it, and what the program does in the life of the service. HOST,
 * PORT and limits are the server's own.
 */
export type FailSafeOptions = Partial<Config> & Pick<ServiceOptions, 'log' | 'signals'> & Hooks;

/** Aborted when the process's service begins to stop, for what cannot wait for the end of the drain: a chat, a job. */
export const stopping: AbortSignal = ending.signal;

/**
 * Makes a server fail-safe that is not ours, before or after it listens. Its listeners are the handlers behind the gate;
 * the program's own signal handlers run after the drain, and the process then ends. All servers of a process are one
 * service, and the options of the first are those of all. With `signals: false` each call makes a service of its own,
 * which takes no signals and ends no process.
 * @throws ConfigError that lists all mistakes in the options; StartError when a hook is no function
 */
export function failSafe(server: Server, options: FailSafeOptions = {}): Service {
  const {
    signals = true,
    log,
    start: _start,
    locked: _locked,
    drained: _drained,
    stop: _stop,
    ...partial
  } = options;
  const app = asHooks(options);
  const make = (): Service =>
    new Service({
      app,
      config: completeConfig({ ...partial, port: 0 }, process.env),
      log,
      signals: signals ? new SignalTrap() : undefined,
      servers: new AdoptedServers(),
    });
  return adopt(server, make, !signals);
}

/** The service of each server that is gated, and that of the process. */
const gated = new WeakMap<Server, Service>();
let ofProcess: Service | undefined;

/** Puts a server behind the gate of the process's service, or else of the one that is made for it. */
export function adopt(server: Server, make: () => Service, ofItsOwn = false): Service {
  const service = gated.get(server) ?? (ofItsOwn ? undefined : ofProcess) ?? make();
  service.adopt(server);
  return service;
}

/** What a service is made of. */
export interface ServiceParts {
  readonly app?: App;
  readonly config: Config;
  readonly log?: Logger | undefined;
  readonly signals?: SignalTrap | undefined;
  /** Instead of a server of the service's own. */
  readonly servers?: AdoptedServers;
  /** Reads the settings anew for a reload. */
  readonly configure?: () => Config;
  readonly notifier?: Notifier | undefined;
  /** What is probably a mistake in the settings. */
  readonly doubts?: readonly string[];
}

/** A controller and its in-process backend. */
export class Service {
  readonly #controller: Controller<InProcess>;
  #starting: Promise<unknown> | undefined;

  constructor(parts: ServiceParts) {
    const {
      app = {},
      config,
      log,
      signals,
      servers,
      configure = () => config,
      notifier,
      doubts = [],
    } = parts;
    const { logLevel: level, logFormat: format = 'json' } = config;
    const logger = log ?? createLogger({ level, format, stream: process.stdout });
    this.#controller = new Controller({
      config,
      log: logger,
      backend: (host) => new InProcess(host, { app, config, signals, listener: servers }),
      configure: () => ({ config: configure(), variables: {} }),
      notifier,
    });
    for (const doubt of doubts) logger.warn(doubt);
    if (signals === undefined) return;
    void this.#endProcess(signals, logger);
    if (servers !== undefined) ofProcess = this;
    const { stopping } = this.#controller.lifecycle;
    stopping.addEventListener('abort', () => ending.abort(stopping.reason));
  }

  async #endProcess(signals: SignalTrap, log: Logger): Promise<void> {
    signals.deliverTo(this.#controller.signalActions, log);
    const report = await this.stopped;
    // A failed start is explained first.
    await this.#starting;
    await signals.release();
    flushLog();
    await endProcess(report.exit_code);
  }

  /** Puts a server behind the gate; the first one starts the service. */
  adopt(server: Server): void {
    if (gated.has(server)) return;
    gated.set(server, this);
    const { backend, lifecycle } = this.#controller;
    backend.adopt(server, () => void this.stop('server.close()'));
    if (lifecycle.state === 'starting') {
      // A server that listens already would refuse its first clients.
      const release = holdConnections(server);
      this.#starting ??= this.start().catch(explain);
      void Promise.race([this.#starting, aborted(lifecycle.stopping)]).then(() => release());
    }
  }

  get state(): State {
    return this.#controller.lifecycle.state;
  }

  /** Whether a request that came now would be admitted. */
  get acceptingRequests(): boolean {
    return this.state === 'running';
  }

  /** Requests admitted whose response is not closed. */
  get inFlight(): number {
    return this.#controller.backend.inFlight;
  }

  /** Where the service listens; null while it does not. */
  get address(): AddressInfo | null {
    return addressOf(this.#controller.backend.server);
  }

  /** Where the ops server listens; null while it does not, or when it is off. */
  get opsAddress(): AddressInfo | null {
    return this.#controller.opsAddress;
  }

  /** The node:http server behind the gate, for a program that hands it connections of its own. */
  get server(): Server {
    return this.#controller.backend.server;
  }

  /** Resolves when the service has stopped, by whatever order. A failed start also settles it. */
  get stopped(): Promise<ShutdownReport> {
    return this.#controller.stopped;
  }

  /** The body of `GET /status`. */
  status(): Status {
    return this.#controller.describe(this.#controller.backend.status());
  }

  /**
   * Resolves when the service runs, or when a stop has overtaken the start.
   * @throws StartError with an exit code, also after a stop: a service runs once
   */
  async start(): Promise<void> {
    const { order, state } = this.#controller.lifecycle;
    if (order !== undefined || state === 'stopped') {
      const why = `a service starts once, and this one is ${state === 'stopped' ? state : 'stopping'}`;
      throw new StartError(`start(): ${why}; make a new one with createService()`, ExitCode.Internal);
    }
    return this.#controller.start();
  }

  /**
   * Stops the service: locks it in this turn of the loop, lets what is in flight end, and leaves. Only the first call
   * begins a stop; each resolves with the same report when it is over.
   * @param reason for the log and the report
   * @param delayMs lame duck; default: `shutdownDelayMs` of the settings
   */
  stop(reason = 'stop()', delayMs?: number): Promise<ShutdownReport> {
    return this.#controller.stop(reason, delayMs);
  }

  /** Cuts what is in flight, now. Without a stop under way it begins one. */
  force(reason: string): Promise<ShutdownReport> {
    return this.#controller.force(reason);
  }

  /** For a program's own handler of uncaught errors: stops with what can still be saved, exit code 70 in the report. */
  crash(origin: string, error: unknown): Promise<ShutdownReport> {
    return this.#controller.crash(origin, error);
  }

  /** Locks at once, latches the service and stops it. It will not start before it is unlatched. */
  emergencyShutdown(reason: string, by = 'the program'): Promise<ShutdownReport> {
    void this.#controller.emergencyShutdown(reason, by);
    return this.stopped;
  }

  /** Takes over the settings that can change while running. @throws ConfigError; then all stays as it was */
  async reload(config: Config): Promise<void> {
    await this.#controller.apply({ config, variables: {} });
  }

  /** Continues in new files where the old ones were renamed. */
  reopen(): void {
    this.#controller.reopen();
  }
}
