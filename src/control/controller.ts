import type { AddressInfo } from 'node:net';
import { isatty } from 'node:tty';
import type { Logger } from 'pino';
import type { AuditLog } from '../audit/audit-log.ts';
import { openAudit } from '../audit/open-audit.ts';
import { type Config, ConfigError, checkAll } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { ExitCode, graverOf, StartError } from '../exit-code.ts';
import type { ReloadOutcome } from '../lifecycle/last-reload.ts';
import {
  type CutHold,
  type CutRequest,
  ShutdownRecord,
  type ShutdownReport,
} from '../lifecycle/last-shutdown.ts';
import { assertUnlatched, setLatch, UNLATCH } from '../lifecycle/latch.ts';
import { Lifecycle } from '../lifecycle/lifecycle.ts';
import { type OpsServer, openOpsServer } from '../ops/ops-server.ts';
import type { Emergency, Status } from '../ops/status.ts';
import { afterReading, within } from '../platform/deadline.ts';
import { deferred } from '../platform/deferred.ts';
import { addressOf, handedSocket, OPS_ADDRESS, probe, SERVICE_ADDRESS, urlOf } from '../platform/listen.ts';
import { readAuditKey, readToken } from '../platform/secrets.ts';
import { type SignalActions, signalNumber } from '../platform/signals.ts';
import { type Notifier, SILENT } from '../platform/systemd.ts';
import { plural } from '../plural.ts';
import { TrustedProxies } from '../server/trusted-proxies.ts';
import { version } from '../version.ts';
import { Administration } from './administration.ts';
import type { Backend, BackendStatus, Host, Settings } from './backend.ts';
import { type ControlFacts, statusOf } from './facts.ts';
import { Reloads } from './reloads.ts';
import { ServiceManager } from './service-manager.ts';
import { logCut, stop } from './stop.ts';
import { checkStopBudget } from './stop-budget.ts';

/** How long a small file of the state directory may take: a disk that does not answer must not delay a stop. */
const STATE_FILE_MS = 500;
/** The latch gets longer: it is what keeps the service down. The lock and the drain do not wait for it. */
const LATCH_MS = 2_000;

export interface ControllerParts<B extends Backend> {
  readonly config: Config;
  readonly log: Logger;
  /** Makes what serves. */
  readonly backend: (host: Host) => B;
  /** Default: there is no service manager. */
  readonly notifier?: Notifier | undefined;
  /** Reads the settings anew. @throws ConfigError */
  readonly configure: () => Settings;
}

/**
 * Owns the life of a service, with any backend: its state, the orders to stop, the deadline, the latch, reloads, the
 * ops server, and what outlives the process. With workers its process runs no application code.
 */
export class Controller<B extends Backend = Backend> {
  readonly lifecycle: Lifecycle;
  readonly backend: B;
  readonly #log: Logger;
  readonly #configure: () => Settings;
  readonly #manager: ServiceManager;
  readonly #admin: Administration;
  readonly #reloads: Reloads;
  readonly #lockNow = deferred<void>();
  readonly #cutNow = deferred<void>();
  readonly #stopped = deferred<ShutdownReport>();
  /** Requests that the stop under way has cut. */
  readonly #cut: CutRequest[] = [];
  readonly #proxies: TrustedProxies;
  #config: Config;
  #ops: OpsServer | undefined;
  #record: ShutdownRecord | undefined;
  #audit: AuditLog | undefined;
  #starting: Promise<void> | undefined;
  #finishing: Promise<void> | undefined;
  /** The gravest that an order to stop asks for. A stop that goes well ends with it. */
  #exitCode: ExitCode = ExitCode.Ok;
  #inFlightAtLock: number | undefined;
  #emergency: Emergency | undefined;
  /** Resolves to whether the last latch is on disk. */
  #latching: Promise<boolean> = Promise.resolve(false);

  constructor({ config, log, backend, notifier = SILENT, configure }: ControllerParts<B>) {
    this.#config = config;
    this.#log = log;
    this.#configure = configure;
    this.#proxies = new TrustedProxies(config.trustedProxies);
    this.lifecycle = new Lifecycle((state) => {
      this.#audit?.record('state', { state });
      this.#ops?.changed();
    });
    this.#manager = new ServiceManager(notifier, this.lifecycle, () => this.#status());
    this.#admin = new Administration({
      log,
      audit: () => this.#audit,
      emergencyShutdown: (reason, by) => this.emergencyShutdown(reason, by),
    });
    this.backend = backend({
      log,
      lifecycle: this.lifecycle,
      admin: this.#admin,
      proxies: this.#proxies,
      cut: (requests, holds) => this.#noteCut(requests, holds),
      auditLost: (error) => this.#auditLost(error),
      lost: (error) => this.#backendLost(error),
      changed: () => this.#ops?.changed(),
    });
    this.#reloads = new Reloads({
      log,
      stateDir: config.stateDir,
      reload: () => this.#reload(),
      generation: () => this.backend.generation,
      began: () => {
        this.#manager.reloading();
        this.#ops?.changed();
      },
      ended: ({ outcome, reason, generation }) => {
        this.#audit?.record('reload', { outcome, reason, generation });
        this.#ops?.changed();
        this.#manager.running(this.#serving);
      },
    });
  }

  /** Resolves when the service has stopped, by whatever order. A failed start also settles it. */
  get stopped(): Promise<ShutdownReport> {
    return this.#stopped.promise;
  }

  /** Where the ops server listens; null while it does not, or when it is off. */
  get opsAddress(): AddressInfo | null {
    return this.#ops === undefined ? null : addressOf(this.#ops.server);
  }

  /** Resolves when the service runs, or when a stop has overtaken the start. @throws StartError or ConfigError */
  async start(): Promise<void> {
    if (this.#starting === undefined) {
      this.#starting = this.#bringUp();
      this.#starting.catch((error) => this.#stopped.resolve(failedStart(error)));
    }
    // The application's start() may never settle, and a stop does not wait for it.
    await Promise.race([this.#starting, this.stopped]);
  }

  /** STARTING, from top to bottom. Each step is a line in the log. A failure closes all that was opened. */
  async #bringUp(): Promise<void> {
    const config = this.#config;
    const overtaken = (): boolean => this.lifecycle.state !== 'starting';
    if (overtaken()) return;
    try {
      // What can be found out before anything is opened.
      checkStopBudget(config, this.#log);
      assertUnlatched(config.stateDir);
      const { host, port, opsHost, opsPort } = config;
      await checkAll([
        () => this.#admin.credential.set(readToken(config)),
        () => readAuditKey(config),
        () => handedSocket() ?? probe(host, port, SERVICE_ADDRESS),
        () => opsPort !== 'off' && probe(opsHost, opsPort, OPS_ADDRESS),
      ]);
      if (overtaken()) return;

      await this.#openState(config);
      this.#log.info(
        this.#admin.credential.isSet
          ? "Administrator's credential loaded"
          : "No administrator's credential: /admin is closed (set ADMIN_TOKEN or ADMIN_TOKEN_FILE)",
      );
      if (overtaken()) return;
      await this.backend.start(this.#audit);
      // The loop has to turn for a signal that came meanwhile to be heard.
      await afterReading(0);
      if (overtaken()) return;
      await this.backend.open();
      if (overtaken()) return;
      this.lifecycle.to('running');
      this.#log.info(`Service state: RUNNING - Accepting requests on ${this.backend.where}`);
      this.#manager.feedWatchdog(() => this.backend.responsive);
      this.#manager.running(this.#serving);
    } catch (error) {
      if (overtaken()) {
        const stopped = error instanceof StartError && error.exitCode === ExitCode.Ok;
        if (!stopped) this.#log.warn({ err: error }, `The start was abandoned: ${messageOf(error)}`);
        return;
      }
      this.lifecycle.to('stopped');
      this.#finishing = Promise.resolve();
      await this.backend.kill();
      await this.#ops?.close(undefined);
      await this.#audit?.close();
      await within(STATE_FILE_MS, this.#record?.abandon() ?? Promise.resolve());
      throw error;
    }
  }

  /** Opens what exists once, however many processes serve. The ops server comes last: the others may still fail. */
  async #openState(config: Config): Promise<void> {
    this.#record = await ShutdownRecord.open(config.stateDir);
    const { last } = this.#record;
    if (last?.unclean) {
      this.#log.warn(
        `The run before this one (pid ${last.pid}, started ${last.started_at}) ended without a shutdown`,
      );
    }
    this.#audit = openAudit(config, { log: this.#log, lost: (error) => this.#auditLost(error) });
    this.#audit?.record('state', { state: 'starting' });
    this.#ops = await openOpsServer(config, {
      lifecycle: this.lifecycle,
      log: this.#log,
      admin: this.#admin,
      proxies: this.#proxies,
      ready: () => this.lifecycle.ready && this.backend.ready,
      status: () => this.#status(),
      metrics: async () => {
        const backend = await this.backend.status();
        const { tallies, cut, replaced } = backend;
        return { status: this.describe(backend), tallies, cut, replaced, reloads: this.#reloads.counts };
      },
    });
    if (this.#ops !== undefined) await this.#record.announce(urlOf(this.#ops.server));
  }

  /**
   * Stops the service: locks it, lets what is in flight end, and leaves. Only the first call begins a stop; each
   * resolves with the same report when it is over.
   * @param reason for the log and the report: the name of a signal, or of the caller
   */
  stop(reason: string, delayMs = this.#config.shutdownDelayMs): Promise<ShutdownReport> {
    const signal = reason.startsWith('SIG') ? signalNumber(reason as NodeJS.Signals) : undefined;
    const announcement = signal === undefined ? `Asked to stop by ${reason}.` : `Received signal ${signal}.`;
    return this.#order(reason, announcement, ExitCode.Ok, delayMs);
  }

  /** Cuts what is in flight, now. Without a stop under way it begins one. */
  force(reason: string): Promise<ShutdownReport> {
    const stopped = this.stop(reason);
    this.#cutNow.resolve();
    return stopped;
  }

  /** The code has broken, and no single request is to blame: stops with what can still be saved. */
  crash(origin: string, error: unknown): Promise<ShutdownReport> {
    this.#log.fatal({ err: error }, `Crash (${origin}): ${messageOf(error)}`);
    return this.#order('crash', 'The application has crashed.', ExitCode.Internal);
  }

  /** The service must not go on without its audit log. With workers, each of them may report the loss. */
  #auditLost(error: Error): void {
    if (this.#exitCode === ExitCode.AuditLost) return;
    this.#log.error({ err: error }, `The audit log cannot be written: ${messageOf(error)}`);
    void this.#order('audit', 'The audit log is lost.', ExitCode.AuditLost);
  }

  #backendLost(error: Error): void {
    this.#log.fatal({ err: error }, `Nothing serves any more: ${messageOf(error)}`);
    void this.#order('program', 'The program cannot be restarted.', ExitCode.Internal);
  }

  /**
   * Locks in this turn of the loop, latches the service and stops it: it will not start before it is unlatched.
   * @returns whether the latch is on disk
   */
  emergencyShutdown(reason: string, by: string): Promise<boolean> {
    this.#emergency ??= { by, reason, latched: null };
    const why = reason === '' ? '' : `: ${JSON.stringify(reason)}`;
    this.#log.warn({ by, emergency: reason }, `Emergency shutdown by ${by}${why}`);
    void this.#order('emergency', 'Emergency shutdown.', ExitCode.Ok);
    // One after the other, so that the last reason is the one on disk.
    this.#latching = this.#latching.then(() => this.#latch(reason, by));
    return this.#latching;
  }

  async #latch(reason: string, by: string): Promise<boolean> {
    const { stateDir } = this.#config;
    let latched = false;
    try {
      await onDisk(setLatch(stateDir, { time: new Date().toISOString(), by, reason }), LATCH_MS);
      latched = true;
      this.#log.warn(`Latched: the service will not start before: ${UNLATCH}`);
    } catch (error) {
      this.#log.error(
        { err: error },
        `The latch could not be kept in ${stateDir}: ${messageOf(error)}. Nothing prevents a restart`,
      );
    }
    this.#audit?.record('emergency', { by, reason, latched });
    if (this.#emergency !== undefined) this.#emergency = { ...this.#emergency, latched };
    this.#ops?.changed();
    return latched;
  }

  /** The first order begins the stop. A later one may make it graver, or end its lame duck. */
  #order(reason: string, announcement: string, exitCode: ExitCode, delayMs = 0): Promise<ShutdownReport> {
    this.#exitCode = graverOf(this.#exitCode, exitCode);
    if (delayMs === 0) this.#lockNow.resolve();
    this.#finishing ??= this.#finish(reason, announcement, delayMs).then(
      this.#stopped.resolve,
      this.#stopped.reject,
    );
    // A lame duck is no state of its own, but the status shows it.
    this.#ops?.changed();
    return this.stopped;
  }

  async #finish(reason: string, announcement: string, delayMs: number): Promise<ShutdownReport> {
    const { enableFailSafe, shutdownTimeoutMs } = this.#config;
    const stopping = stop(
      {
        lifecycle: this.lifecycle,
        backend: this.backend,
        log: this.#log,
        cut: this.#cut,
        locked: (inFlight) => {
          this.#inFlightAtLock = inFlight;
          this.#ops?.changed();
        },
        closeAudit: async () => {
          await this.#latching;
          return this.#audit === undefined || this.#audit.close();
        },
      },
      {
        reason,
        announcement,
        delayMs,
        timeoutMs: shutdownTimeoutMs,
        failSafe: enableFailSafe,
        exitCode: () => this.#exitCode,
        lockNow: this.#lockNow.promise,
        cutNow: this.#cutNow.promise,
      },
    );
    // After the call above, which locks in this turn of the loop.
    const endProgress = this.#manager.stopping(delayMs + shutdownTimeoutMs);
    const report = await stopping;
    endProgress();
    try {
      if (this.#record !== undefined) await onDisk(this.#record.close(report));
    } catch (error) {
      this.#log.error({ err: error }, `The report of this stop could not be kept: ${messageOf(error)}`);
    }
    this.#log.info({ report }, 'Service shutdown complete');
    await this.#ops?.close(report);
    return report;
  }

  #noteCut(requests: readonly CutRequest[], holds?: readonly CutHold[]): void {
    if (this.lifecycle.order !== undefined) this.#cut.push(...requests);
    logCut(this.#log, requests, holds);
  }

  /** What signals, crashes and the application's process.exit do to the service. */
  get signalActions(): SignalActions {
    return {
      stop: (signal) => {
        void this.stop(signal);
        if (signal === 'SIGINT' && isatty(0)) this.#log.info('Press Ctrl-C again to cut what is in flight');
      },
      force: (signal) => void this.force(signal),
      crash: (origin, error) => void this.crash(origin, error),
      reload: () => this.reload(),
      reopen: () => this.reopen(),
      stopping: () => this.lifecycle.order !== undefined,
      exit: (code) => this.#lose(code),
    };
  }

  /** The application ends the process in this turn of the loop: logs and records what that cuts. */
  #lose(code: number): void {
    const { state } = this.lifecycle;
    if (state !== 'stopped') {
      this.#log.fatal(`The application has ended the process, with ${code}, while it was ${state}`);
      logCut(this.#log, this.backend.lose());
    }
    this.#audit?.closeNow();
  }

  /** Takes new settings, and with workers new code. A mistake in them changes nothing. Files are reopened in any case. */
  reload(): void {
    this.#log.info('Received signal 1. Reloading...');
    this.#reopenFiles();
    void this.#reloads.ask();
  }

  /** Continues in new files where the old ones were renamed, and changes nothing else. */
  reopen(): void {
    this.#log.info('Reopening the audit log...');
    this.#reopenFiles();
  }

  #reopenFiles(): void {
    this.#audit?.reopen();
    this.backend.reopen();
  }

  async #reload(): Promise<ReloadOutcome['what']> {
    const { state, order, ready } = this.lifecycle;
    if (!ready) throw new Error(`the service is ${order === undefined ? state : 'stopping'}`);
    return this.apply(this.#configure());
  }

  /** Puts new settings in place. @throws Error that says why everything stays as it was */
  async apply(settings: Settings): Promise<ReloadOutcome['what']> {
    const { config } = settings;
    // Read first: a missing file must leave everything as it was.
    const token = readToken(config);
    readAuditKey(config);
    const done = await this.backend.reload(settings);
    // The logger may be the program's own, with a level of its own.
    if (config.logLevel !== this.#config.logLevel) this.#log.level = config.logLevel;
    this.#config = config;
    this.#admin.credential.set(token);
    this.#proxies.configure(config.trustedProxies);
    checkStopBudget(config, this.#log);
    return done;
  }

  /** `GET /status`, from what the backend has told. */
  describe(backend: BackendStatus): Status {
    const facts: ControlFacts = {
      lifecycle: this.lifecycle,
      reloads: this.#reloads,
      audit: this.#audit,
      lastShutdown: this.#record?.last,
      inFlightAtLock: this.#inFlightAtLock,
      emergency: this.#emergency,
      application: this.#config.app,
      where: this.backend.where,
      administration: this.#admin.credential.isSet ? 'open' : 'closed',
    };
    return statusOf(facts, backend);
  }

  async #status(): Promise<Status> {
    return this.describe(await this.backend.status());
  }

  /** For the service manager. */
  get #serving(): string {
    const { workers } = this.#config;
    return workers === 0
      ? 'Serving'
      : `Serving: generation ${this.backend.generation}, ${plural(workers, 'worker')}`;
  }
}

/** @throws Error when the disk does not answer in time, or what the write has failed with */
async function onDisk(written: Promise<void>, ms = STATE_FILE_MS): Promise<void> {
  if (!(await within(ms, written))) throw new Error('the disk does not answer');
}

/** What `stopped` resolves with after a failed start. No file holds it, because the run never began. */
function failedStart(error: unknown): ShutdownReport {
  const now = new Date().toISOString();
  const known = error instanceof StartError || error instanceof ConfigError;
  return {
    unclean: false,
    pid: process.pid,
    version,
    reason: 'failed start',
    started_at: now,
    stopped_at: now,
    duration_seconds: 0,
    in_flight_at_lock: 0,
    completed: 0,
    aborted: 0,
    closed: 0,
    cut: [],
    cut_holds: [],
    rejected: 0,
    exit_code: known ? error.exitCode : ExitCode.Internal,
  };
}
