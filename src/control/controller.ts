import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import type { AuditLog } from '../audit/audit-log.ts';
import { openAudit } from '../audit/open-audit.ts';
import { type Config, ConfigError } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { ExitCode, graverOf, StartError } from '../exit-code.ts';
import { type CutRequest, ShutdownRecord, type ShutdownReport } from '../lifecycle/last-shutdown.ts';
import { assertUnlatched, setLatch } from '../lifecycle/latch.ts';
import { Lifecycle } from '../lifecycle/lifecycle.ts';
import { type OpsServer, openOpsServer } from '../ops/ops-server.ts';
import type { Emergency, Status } from '../ops/status.ts';
import { afterReading, within } from '../platform/deadline.ts';
import { deferred } from '../platform/deferred.ts';
import { addressOf, handedSocket, probe, SERVICE_ADDRESS, urlOf } from '../platform/listen.ts';
import { readAuditKey, readToken } from '../platform/secrets.ts';
import { signalNumber } from '../platform/signals.ts';
import { type Notifier, SILENT } from '../platform/systemd.ts';
import { version } from '../version.ts';
import { Administration } from './administration.ts';
import type { Backend, BackendStatus, Host, Settings } from './backend.ts';
import { type ControlFacts, metricsOf, statusOf } from './facts.ts';
import { Reloads } from './reloads.ts';
import { ServiceManager } from './service-manager.ts';
import { logCut, type StopPlan, stop } from './stop.ts';
import { checkStopBudget } from './stop-budget.ts';

/** What small files of the state directory may take to be written: a disk that does not answer holds no stop. */
const STATE_FILE_MS = 500;

/** Why the service has to stop, and how much of a hurry there is. */
interface Order extends Pick<StopPlan, 'reason' | 'announcement' | 'delayMs'> {
  readonly exitCode: ExitCode;
}

export interface ControllerParts {
  readonly config: Config;
  readonly log: Logger;
  /** Makes what serves. */
  readonly backend: (host: Host) => Backend;
  /** Default: nobody is told. */
  readonly notifier?: Notifier;
  /** Reads the settings anew. @throws ConfigError */
  readonly configure: () => Settings;
}

/**
 * Owns the life of a service, whatever serves: its state, the orders to stop, the deadline, the latch, reloads, the
 * ops server, and what outlives the process. With workers its process runs no application code.
 */
export class Controller {
  readonly lifecycle: Lifecycle;
  readonly #log: Logger;
  readonly #manager: ServiceManager;
  readonly #configure: () => Settings;
  readonly #backend: Backend;
  readonly #admin: Administration;
  readonly #reloads: Reloads;
  readonly #hurry = { lockNow: deferred<void>(), cutNow: deferred<void>() };
  readonly #over = deferred<ShutdownReport>();
  /** Requests that the stop under way has cut. */
  readonly #cut: CutRequest[] = [];
  #config: Config;
  #ops: OpsServer | undefined;
  #record: ShutdownRecord | undefined;
  #audit: AuditLog | undefined;
  #starting: Promise<void> | undefined;
  #finishing: Promise<void> | undefined;
  /** What a stop that goes well ends with: the gravest of what ordered it. */
  #exitCode: ExitCode = ExitCode.Ok;
  #inFlightAtLock: number | undefined;
  #emergency: Emergency | undefined;
  /** The latch on its way to the disk; resolves to whether it is there. */
  #latching: Promise<boolean> = Promise.resolve(false);

  constructor({ config, log, backend, notifier = SILENT, configure }: ControllerParts) {
    this.#config = config;
    this.#log = log;
    this.#configure = configure;
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
    this.#backend = backend({
      log,
      lifecycle: this.lifecycle,
      admin: this.#admin,
      cut: (requests) => this.#noteCut(requests),
      auditLost: (error) => this.#auditLost(error),
      changed: () => this.#ops?.changed(),
    });
    this.#reloads = new Reloads({
      log,
      stateDir: config.stateDir,
      reload: () => this.#reload(),
      generation: () => this.#backend.generation,
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

  /** Resolves when the service has stopped, whoever asked for it. A failed start also settles it. */
  get stopped(): Promise<ShutdownReport> {
    return this.#over.promise;
  }

  /** Where the ops server listens; null while it does not, or when it is off. */
  get opsAddress(): AddressInfo | null {
    return this.#ops === undefined ? null : addressOf(this.#ops.server);
  }

  /** What `GET /status` tells, from what the backend has told. */
  describe(backend: BackendStatus): Status {
    return statusOf(this.#facts, backend);
  }

  /** In a few words, for the service manager. */
  get #serving(): string {
    const { workers } = this.#config;
    return workers === 0 ? 'Serving' : `Serving: generation ${this.#backend.generation}, ${workers} workers`;
  }

  async #status(): Promise<Status> {
    return statusOf(this.#facts, await this.#backend.status());
  }

  get #facts(): ControlFacts {
    return {
      lifecycle: this.lifecycle,
      reloads: this.#reloads,
      audit: this.#audit,
      lastShutdown: this.#record?.last,
      inFlightAtLock: this.#inFlightAtLock,
      emergency: this.#emergency,
    };
  }

  /** Resolves when the service runs, or when a stop has overtaken the start. @throws StartError or ConfigError */
  async start(): Promise<void> {
    if (this.#starting === undefined) {
      this.#starting = this.#bringUp();
      this.#starting.catch((error) => this.#over.resolve(failedStart(error)));
    }
    // The application's start() may never settle; a stop does not wait for it for ever, and neither does our caller.
    await Promise.race([this.#starting, this.stopped]);
  }

  /** STARTING, from top to bottom. Each step is a line in the log; whatever fails, all that was opened is closed. */
  async #bringUp(): Promise<void> {
    const config = this.#config;
    const overtaken = (): boolean => this.lifecycle.state !== 'starting';
    if (overtaken()) return;
    try {
      // What can be found out before anything is opened.
      checkStopBudget(config, this.#log);
      assertUnlatched(config.stateDir);
      const token = readToken(config);
      readAuditKey(config);
      if (handedSocket() === undefined) await probe(config.host, config.port, SERVICE_ADDRESS);
      if (overtaken()) return;

      await this.#openState(config);
      this.#audit = openAudit(config, { log: this.#log, lost: (error) => this.#auditLost(error) });
      this.#audit?.record('state', { state: 'starting' });
      this.#admin.use(token);
      this.#log.info(
        this.#admin.isOpen
          ? "Administrator's credential loaded"
          : "No administrator's credential: /admin is closed (set ADMIN_TOKEN or ADMIN_TOKEN_FILE)",
      );
      if (overtaken()) return;
      await this.#backend.start(this.#audit);
      // A signal that came meanwhile is only heard when the loop has turned.
      await afterReading(0);
      if (overtaken()) return;
      await this.#backend.open();
      if (overtaken()) return;
      this.lifecycle.to('running');
      this.#log.info(`Service state: RUNNING - Accepting requests on ${this.#backend.where}`);
      this.#manager.feedWatchdog(() => this.#backend.responsive);
      this.#manager.running(this.#serving);
    } catch (error) {
      if (overtaken()) {
        const stopped = error instanceof StartError && error.exitCode === ExitCode.Ok;
        if (!stopped) this.#log.warn({ err: error }, `The start was abandoned: ${messageOf(error)}`);
        return;
      }
      await this.#giveUp();
      throw error;
    }
  }

  /** What there is one of, however many processes serve: the record of the last run, and the ops server. */
  async #openState(config: Config): Promise<void> {
    this.#record = await ShutdownRecord.open(config.stateDir);
    const { last } = this.#record;
    if (last?.unclean) {
      this.#log.warn(
        `The run before this one (pid ${last.pid}, started ${last.started_at}) ended without a shutdown`,
      );
    }
    this.#ops = await openOpsServer(config, {
      lifecycle: this.lifecycle,
      log: this.#log,
      admin: this.#admin,
      ready: () => this.lifecycle.ready && this.#backend.ready,
      status: () => this.#status(),
      metrics: async () => metricsOf(this.#facts, await this.#backend.status()),
    });
    if (this.#ops !== undefined) await this.#record.announce(urlOf(this.#ops.server));
  }

  /** The start has failed: what it had opened is closed. */
  async #giveUp(): Promise<void> {
    this.lifecycle.to('stopped');
    this.#finishing = Promise.resolve();
    await this.#backend.kill();
    await this.#ops?.close(undefined);
    await this.#audit?.close();
    await within(STATE_FILE_MS, this.#record?.abandon() ?? Promise.resolve());
  }

  /**
   * Stops the service: locks it, lets what is in flight end, and leaves. Only the first call begins a stop; each
   * resolves with the same report when it is over.
   * @param reason for the log and the report; a signal's name, or whatever the caller is
   */
  stop(reason: string, delayMs = this.#config.shutdownDelayMs): Promise<ShutdownReport> {
    const signal = reason.startsWith('SIG') ? signalNumber(reason as NodeJS.Signals) : undefined;
    this.#order({
      reason,
      announcement: signal === undefined ? `Asked to stop by ${reason}.` : `Received signal ${signal}.`,
      delayMs,
      exitCode: ExitCode.Ok,
    });
    return this.stopped;
  }

  /** Cuts what is in flight, now. Without a stop under way it begins one. */
  force(reason: string): Promise<ShutdownReport> {
    const stopped = this.stop(reason);
    this.#hurry.cutNow.resolve();
    return stopped;
  }

  /** The code has broken in a way that no request can be blamed for: stop with what can still be saved. */
  crash(origin: string, error: unknown): Promise<ShutdownReport> {
    this.#log.fatal({ err: error }, `Crash (${origin}): ${messageOf(error)}`);
    this.#order({
      reason: 'crash',
      announcement: 'The application has crashed.',
      delayMs: 0,
      exitCode: ExitCode.Internal,
    });
    return this.stopped;
  }

  /** Without its audit log the service does not go on. */
  #auditLost(error: Error): void {
    // With workers each of them finds out, and one of them is enough.
    if (this.#exitCode === ExitCode.AuditLost) return;
    this.#log.error({ err: error }, `The audit log cannot be written: ${messageOf(error)}`);
    this.#order({
      reason: 'audit',
      announcement: 'The audit log is lost.',
      delayMs: 0,
      exitCode: ExitCode.AuditLost,
    });
  }

  /**
   * Locks in this turn of the loop, latches the service and stops it: it will not start before it is unlatched.
   * @returns whether the latch is on disk
   */
  emergencyShutdown(reason: string, by: string): Promise<boolean> {
    this.#emergency ??= { by, reason };
    const told = `Emergency shutdown by ${by}${reason === '' ? '' : `: ${JSON.stringify(reason)}`}`;
    this.#log.warn({ by, emergency: reason }, told);
    this.#order({
      reason: 'emergency',
      announcement: 'Emergency shutdown.',
      delayMs: 0,
      exitCode: ExitCode.Ok,
    });
    // In their order: the last one's reason is the one that is kept.
    this.#latching = this.#latching.then(() => this.#latch(reason, by));
    return this.#latching;
  }

  async #latch(reason: string, by: string): Promise<boolean> {
    const { stateDir } = this.#config;
    let latched = false;
    try {
      const latch = { time: new Date().toISOString(), by, reason };
      latched = await within(STATE_FILE_MS, setLatch(stateDir, latch));
      if (!latched) throw new Error('the disk does not answer');
      this.#log.warn('Latched: the service will not start before "master-agent unlatch"');
    } catch (error) {
      this.#log.error(
        { err: error },
        `The latch could not be kept in ${stateDir}: ${messageOf(error)}. Nothing prevents a restart`,
      );
    }
    this.#audit?.record('emergency', { by, reason, latched });
    return latched;
  }

  /** The first order begins the stop. A later one may make it graver, or end its lame duck. */
  #order(order: Order): void {
    this.#exitCode = graverOf(this.#exitCode, order.exitCode);
    if (order.delayMs === 0) this.#hurry.lockNow.resolve();
    this.#finishing ??= this.#finish(order).then(this.#over.resolve, this.#over.reject);
    // A lame duck is no state of its own, but everybody who watches wants to see it.
    this.#ops?.changed();
  }

  async #finish(order: Order): Promise<ShutdownReport> {
    const { enableFailSafe, shutdownTimeoutMs } = this.#config;
    const stopping = stop(
      {
        lifecycle: this.lifecycle,
        backend: this.#backend,
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
        ...order,
        exitCode: () => this.#exitCode,
        timeoutMs: shutdownTimeoutMs,
        failSafe: enableFailSafe,
        lockNow: this.#hurry.lockNow.promise,
        cutNow: this.#hurry.cutNow.promise,
      },
    );
    // Locked first, told after.
    const endProgress = this.#manager.stopping(order.delayMs + shutdownTimeoutMs);
    const report = await stopping;
    endProgress();
    await this.#keep(report);
    this.#log.info({ report }, 'Service shutdown complete');
    await this.#ops?.close(report);
    return report;
  }

  async #keep(report: ShutdownReport): Promise<void> {
    try {
      if (this.#record === undefined) return;
      if (!(await within(STATE_FILE_MS, this.#record.close(report))))
        throw new Error('the disk does not answer');
    } catch (error) {
      this.#log.error({ err: error }, `The report of this stop could not be kept: ${messageOf(error)}`);
    }
  }

  /** The process ends in this turn, by the application's order: what that cuts is named and on record. */
  lose(code: number): void {
    const { state } = this.lifecycle;
    if (state !== 'stopped') {
      this.#log.fatal(`The application has ended the process, with ${code}, while it was ${state}`);
      logCut(this.#log, this.#backend.lose());
    }
    this.#audit?.closeNow();
  }

  #noteCut(requests: readonly CutRequest[]): void {
    if (this.lifecycle.order !== undefined) this.#cut.push(...requests);
    logCut(this.#log, requests);
  }

  /** Takes new settings, and with workers new code. A mistake in them changes nothing. Files are reopened in any case. */
  reload(): void {
    this.#log.info('Received signal 1. Reloading...');
    this.#reopenFiles();
    this.#reloads.ask();
  }

  /** Continues in new files where the old ones were renamed, and changes nothing else. */
  reopen(): void {
    this.#log.info('Reopening the audit log...');
    this.#reopenFiles();
  }

  #reopenFiles(): void {
    this.#audit?.reopen();
    this.#backend.reopen();
  }

  /** @throws Error that says why everything stays as it was */
  async #reload(): Promise<string> {
    const { state, order, ready } = this.lifecycle;
    if (!ready) throw new Error(`the service is ${order === undefined ? state : 'stopping'}`);
    return this.apply(this.#configure());
  }

  /** Puts new settings in place. @throws Error that says why everything stays as it was */
  async apply(settings: Settings): Promise<string> {
    const { config } = settings;
    // Read first: a file that is missing must leave everything as it was.
    const token = readToken(config);
    readAuditKey(config);
    const done = await this.#backend.reload(settings);
    this.#config = config;
    this.#admin.use(token);
    this.#log.level = config.logLevel;
    checkStopBudget(config, this.#log);
    return done;
  }
}

/** What a failed start comes to, for those who wait for the end. It is in no file: the run never began. */
function failedStart(error: unknown): ShutdownReport {
  const now = new Date().toISOString();
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
    cut: [],
    rejected: 0,
    exit_code:
      error instanceof StartError || error instanceof ConfigError ? error.exitCode : ExitCode.Internal,
  };
}
