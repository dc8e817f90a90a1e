import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Logger, pino } from 'pino';
import { type App, type AppSource, assertAppFile, loadApp } from '../../app/app.ts';
import { auditFile, type Config, ConfigError } from '../../config/settings.ts';
import { checkStopBudget } from '../../control/stop-budget.ts';
import { messageOf } from '../../error.ts';
import { ExitCode, graverOf, StartError } from '../../exit-code.ts';
import type { ReloadOutcome } from '../../lifecycle/last-reload.ts';
import { type CutRequest, ShutdownRecord, type ShutdownReport } from '../../lifecycle/last-shutdown.ts';
import { assertUnlatched, setLatch } from '../../lifecycle/latch.ts';
import { Lifecycle, type State } from '../../lifecycle/lifecycle.ts';
import { type Admin, type Attempt, Credential } from '../../ops/admin.ts';
import type { MetricsSnapshot } from '../../ops/metrics.ts';
import { type OpsServer, openOpsServer } from '../../ops/ops-server.ts';
import { addServiceRoutes } from '../../ops/routes.ts';
import type { Emergency, Status } from '../../ops/status.ts';
import { afterReading, seconds, within } from '../../platform/deadline.ts';
import { deferred } from '../../platform/deferred.ts';
import { addressOf, handedSocket, probe, SERVICE_ADDRESS, urlOf } from '../../platform/listen.ts';
import { readToken } from '../../platform/secrets.ts';
import { signalNumber } from '../../platform/signals.ts';
import { Connections } from '../../server/connections.ts';
import type { Exchange, Outcome } from '../../server/exchange.ts';
import { Gate } from '../../server/gate.ts';
import { InFlight } from '../../server/in-flight.ts';
import { Router } from '../../server/router.ts';
import { applyLimits, createHttpServer, type GatedServer } from '../../server/server.ts';
import { version } from '../../version.ts';
import type { FlightRecorder } from '../workers/flight-recorder.ts';
import { factsOf, type ServiceFacts } from './facts.ts';
import { type Listener, OwnListener } from './listener.ts';
import { LoopDelay } from './loop-delay.ts';
import { RequestAudit } from './request-audit.ts';
import { retire } from './retire.ts';
import { logCut, type ShutdownPlan, type ShutdownResult, shutdown } from './shutdown.ts';

/** How long an application's start() may take to settle after the service was told to stop. */
const ABANDON_MS = 1_000;

/** How long the report of a stop may take to be on disk, and a latch. */
const DISK_MS = 1_000;
const LATCH_MS = 2_000;

/** Who wants the service stopped, and how much of a hurry there is. */
type Why = Pick<ShutdownPlan, 'reason' | 'announcement' | 'delayMs'> & { readonly exitCode: ExitCode };

/** What a worker's service has of its supervisor, instead of a listening socket and an ops server of its own. */
export interface Post {
  readonly listener: Listener;
  /** Remembers what is in flight for the case that this process can no longer tell. */
  readonly recorder: FlightRecorder;
  /** Hears how many requests were in flight at the lock, and what the stop will end with if all goes well. */
  readonly locked: (inFlight: number, exitCode: ExitCode) => void;
  /** Hears that nothing is in flight any more, what had to be cut for that, and whether the drain was forced to its end. */
  readonly drained: (cut: readonly CutRequest[], forced: boolean) => void;
  /** Hears that an administrator, or the application, has asked for an emergency shutdown of the whole service. */
  readonly emergency: (reason: string, by: string) => void;
}

/** One service: its parts, and the ways in which it begins, changes and ends. */
export class Service {
  readonly #log: Logger;
  /** Takes the lines that tell people of the service's life; a supervisor tells them itself, for all its workers. */
  readonly #lifecycleLog: Logger;
  readonly #source: AppSource;
  readonly #post: Post | undefined;
  readonly #listener: Listener;
  readonly #requestAudit: RequestAudit;
  readonly #lifecycle: Lifecycle;
  readonly #inFlight = new InFlight();
  readonly #connections = new Connections();
  readonly #router = new Router();
  readonly #gate: Gate;
  readonly #server: GatedServer;
  readonly #facts: ServiceFacts;
  readonly #admin: Admin;
  readonly #credential = new Credential(undefined);
  readonly #loopDelay = new LoopDelay();
  readonly #outcomes: Record<Outcome, number> = { completed: 0, aborted: 0, cut: 0 };
  readonly #hurry = { lockNow: deferred<void>(), cutNow: deferred<void>() };
  readonly #over = deferred<ShutdownReport>();
  #config: Config;
  #opsServer: OpsServer | undefined;
  #record: ShutdownRecord | undefined;
  #starting: Promise<void> | undefined;
  /** Set once its start() is done: only what has started can be stopped. */
  #app: App | undefined;
  #finishing: Promise<void> | undefined;
  /** What a stop that goes well ends with: the gravest of what ordered it. */
  #ordered: ExitCode = ExitCode.Ok;
  #lastReload: ReloadOutcome | undefined;
  #inFlightAtLock: number | undefined;
  #emergency: Emergency | undefined;
  /** Settles when the latch is on disk or cannot be. */
  #latching: Promise<void> = Promise.resolve();

  /** @param post set when a supervisor runs this service; without it the service stands alone */
  constructor(source: AppSource, config: Config, log: Logger, post?: Post) {
    this.#source = source;
    this.#config = config;
    this.#log = log;
    this.#post = post;
    this.#lifecycleLog = post === undefined ? log : pino({ level: 'silent' });
    this.#listener = post?.listener ?? new OwnListener(config.host, config.port);
    this.#requestAudit = new RequestAudit(log, (error) => this.#auditLost(error));
    this.#lifecycle = new Lifecycle((state) => {
      this.#requestAudit.state(state);
      this.#opsServer?.changed();
    });
    const around = { lifecycle: this.#lifecycle, inFlight: this.#inFlight, log };
    this.#gate = new Gate(
      { ...around, connections: this.#connections, summed: (count) => this.#requestAudit.refused(count) },
      config,
    );
    const strict = config.auditMode === 'strict' && auditFile(config) !== undefined;
    this.#server = createHttpServer(
      {
        ...around,
        gate: this.#gate,
        connections: this.#connections,
        router: this.#router,
        accepting: () => this.#listener.accepting,
        recorder: post?.recorder,
        keep: strict
          ? (exchange, whole, status) => this.#requestAudit.keep(exchange, whole, status)
          : undefined,
        ended: (exchange, outcome) => this.#ended(exchange, outcome),
      },
      config,
    );
    this.#facts = factsOf({
      ...around,
      gate: this.#gate,
      connections: this.#connections,
      router: this.#router,
      outcomes: this.#outcomes,
      loopDelay: this.#loopDelay,
      stop: () => ({ inFlightAtLock: this.#inFlightAtLock, emergency: this.#emergency }),
      lastShutdown: () => this.#record?.last,
      lastReload: () => this.#lastReload,
      audit: () => this.#requestAudit.audit,
    });
    this.#admin = {
      credential: this.#credential,
      attempted: (attempt, address) => this.#attempted(attempt, address),
      emergencyShutdown: (reason, by) => this.#lockAndLatch(reason, by),
    };
    addServiceRoutes(this.#router, this.#facts, this.#admin);
  }

  get state(): State {
    return this.#lifecycle.state;
  }

  /** Whether a request that came now would be admitted. */
  get acceptingRequests(): boolean {
    return this.state === 'running';
  }

  /** Requests admitted whose response is not closed. */
  get inFlight(): number {
    return this.#inFlight.count;
  }

  /** Where the service listens; null while it does not. */
  get address(): AddressInfo | null {
    return addressOf(this.#server.server);
  }

  /** Where the ops server listens; null while it does not, or when it is off. */
  get opsAddress(): AddressInfo | null {
    return this.#opsServer === undefined ? null : addressOf(this.#opsServer.server);
  }

  /** The node:http server behind the gate, for a program that hands it connections of its own. */
  get server(): Server {
    return this.#server.server;
  }

  /** Resolves when the service has stopped, whoever asked for it. */
  get stopped(): Promise<ShutdownReport> {
    return this.#over.promise;
  }

  /** What `GET /status` tells. */
  status(): Status {
    return this.#facts.status();
  }

  /** What `GET /metrics` is made from. */
  metrics(): MetricsSnapshot {
    return this.#facts.metrics();
  }

  /** Resolves when the service runs, or when a stop has overtaken the start. @throws StartError with an exit code */
  async start(): Promise<void> {
    if (this.#starting === undefined) {
      this.#starting = this.#bringUp();
      // Who waits for the end of a service that never began has not to wait.
      this.#starting.catch((error) => this.#over.resolve(reportOf(failedStart(error), new Date())));
    }
    // The application's start() may never settle. A stop does not wait for it for ever, and neither does our caller.
    await Promise.race([this.#starting, this.stopped]);
  }

  /** STARTING, from top to bottom. Each step is a line in the log; whatever fails, all that was opened is closed. */
  async #bringUp(): Promise<void> {
    const config = this.#config;
    const abandoned = (): boolean => this.#lifecycle.state !== 'starting';
    if (abandoned()) return;
    // Where nobody can ask, nobody watches.
    if (this.#post !== undefined || config.opsPort !== 'off') this.#loopDelay.begin();
    try {
      if (this.#post === undefined) await this.#openSingletons();
      this.#requestAudit.open(config, this.#post === undefined ? 'sole' : 'one of several');
      this.#credential.set(readToken(config));
      this.#log.info(
        this.#credential.isSet
          ? "Administrator's credential loaded"
          : "No administrator's credential: /admin is closed (set ADMIN_TOKEN or ADMIN_TOKEN_FILE)",
      );
      if (abandoned()) return;
      // A supervisor has the same patience with its workers, and ends them itself.
      const patienceMs = this.#post === undefined ? config.startTimeoutMs : Number.POSITIVE_INFINITY;
      // A stop that is over has not waited for it either: nothing is left to be patient for.
      if (!(await within(patienceMs, Promise.race([this.#startApp(), this.stopped])))) {
        const told = `APP: the application had not started after ${seconds(patienceMs)}s (START_TIMEOUT)`;
        throw new StartError(told, ExitCode.Internal);
      }
      // A signal that came meanwhile is only heard when the loop has turned.
      await afterReading(0);
      if (abandoned()) return;
      await this.#listener.open(this.#server.server);
      if (abandoned()) return;
      this.#lifecycle.to('running');
      this.#lifecycleLog.info(`Service state: RUNNING - Accepting requests on ${this.#listener.where}`);
    } catch (error) {
      if (abandoned()) {
        this.#log.warn({ err: error }, `The start was abandoned: ${messageOf(error)}`);
        return;
      }
      await this.#giveUp();
      throw error;
    }
  }

  /** What there is one of, however many processes serve: the latch, the record of the last run, the ops server. */
  async #openSingletons(): Promise<void> {
    const config = this.#config;
    checkStopBudget(config, this.#log);
    assertUnlatched(config.stateDir);
    if (typeof this.#source === 'string') assertAppFile(this.#source);
    // Found out before anything is opened that would have to be closed again.
    if (handedSocket() === undefined) await probe(config.host, config.port, SERVICE_ADDRESS);
    this.#record = await ShutdownRecord.open(config.stateDir);
    const { last } = this.#record;
    if (last?.unclean) {
      this.#log.warn(
        `The run before this one (pid ${last.pid}, started ${last.started_at}) ended without a shutdown`,
      );
    }
    this.#opsServer = await openOpsServer(config, this.#facts, this.#admin, {
      lifecycle: this.#lifecycle,
      log: this.#log,
    });
    if (this.#opsServer !== undefined) await this.#record.announce(urlOf(this.#opsServer.server));
  }

  async #startApp(): Promise<void> {
    const name = typeof this.#source === 'string' ? this.#source : 'the application';
    const app = typeof this.#source === 'string' ? await loadApp(this.#source) : this.#source;
    let part = 'start()';
    try {
      await app.start?.({ log: this.#log, config: this.#config, stopping: this.#lifecycle.stopping });
      if (this.#lifecycle.state === 'stopped') {
        // Given up long ago: nobody else will let go of what it has opened.
        await app.stop?.();
        return;
      }
      this.#app = app;
      part = 'routes()';
      app.routes?.(this.#router);
      if (this.#router.takesUpgrades) this.#server.takeUpgrades();
    } catch (error) {
      throw new StartError(`APP: ${part} of ${name} failed: ${messageOf(error)}`, ExitCode.Internal, {
        cause: error,
      });
    }
    const none = Object.keys(app).length === 0;
    this.#log.info(none ? "No application: the service's own routes alone" : `Application started: ${name}`);
  }

  /** The start has failed: what it had opened is closed. */
  async #giveUp(): Promise<void> {
    this.#lifecycle.to('stopped');
    this.#finishing = Promise.resolve();
    this.#listener.close();
    try {
      await within(ABANDON_MS, Promise.resolve(this.#app?.stop?.()));
    } catch (stopError) {
      this.#log.error({ err: stopError }, `The application's stop() failed: ${messageOf(stopError)}`);
    }
    await this.#closeOpsServer();
    await this.#requestAudit.close();
    await within(DISK_MS, this.#record?.abandon() ?? Promise.resolve());
  }

  /** Reopens the files that something else may have renamed: the audit log. */
  reopen(): void {
    this.#requestAudit.reopen();
  }

  /** Keeps how a reload went, for `/status`. */
  noteReload(outcome: ReloadOutcome): void {
    this.#lastReload = outcome;
    this.#opsServer?.changed();
  }

  /** Aborted at the lock. */
  get stopping(): AbortSignal {
    return this.#lifecycle.stopping;
  }

  /** Takes over the settings that can change while running. The caller has compared the others. */
  reload(config: Config): void {
    // Read first: a token file that is missing must leave everything as it was.
    const token = readToken(config);
    this.#config = config;
    this.#credential.set(token);
    this.#gate.configure(config);
    applyLimits(this.#server.server, config);
    this.#log.level = config.logLevel;
    checkStopBudget(config, this.#log);
  }

  /**
   * Stops the service: locks it, lets what is in flight end, and leaves. Only the first call begins a stop; each
   * resolves with the same report when it is over.
   * @param reason for the log and the report; a signal's name, or whatever the caller is
   */
  stop(reason = 'stop()', delayMs = this.#config.shutdownDelayMs): Promise<ShutdownReport> {
    const signal = reason.startsWith('SIG') ? signalNumber(reason as NodeJS.Signals) : undefined;
    this.#begin({
      reason,
      announcement: signal === undefined ? `Asked to stop by ${reason}.` : `Received signal ${signal}.`,
      delayMs,
      exitCode: ExitCode.Ok,
    });
    return this.stopped;
  }

  /** Ends a lame duck that is under way, so that the gate is locked at once. */
  lockNow(): void {
    this.#hurry.lockNow.resolve();
  }

  /** Cuts what is in flight, now. Without a stop under way it begins one. */
  force(reason: string): Promise<ShutdownReport> {
    const stopped = this.stop(reason);
    this.#hurry.cutNow.resolve();
    return stopped;
  }

  /**
   * Makes room for a successor: no more connections come, those that are open are served until they are gone or
   * `lingerMs` is over, then the service stops.
   */
  async retire(lingerMs: number): Promise<ShutdownReport> {
    await Promise.race([retire(this.#listener, this.#connections, lingerMs), this.stopped]);
    return this.stop('retirement', 0);
  }

  /** Locks at once, whatever is under way, latches the service and stops it. It will not start before it is unlatched. */
  emergencyShutdown(reason: string, by = 'the program'): Promise<ShutdownReport> {
    void this.#lockAndLatch(reason, by);
    return this.stopped;
  }

  /** The lock comes first. @returns whether the latch is on disk */
  async #lockAndLatch(reason: string, by: string): Promise<boolean> {
    const { stateDir } = this.#config;
    this.#emergency ??= { by, reason };
    const told = `Emergency shutdown by ${by}${reason === '' ? '' : `: ${JSON.stringify(reason)}`}`;
    this.#log.warn({ by, emergency: reason }, told);
    this.#begin({
      reason: 'emergency',
      announcement: 'Emergency shutdown.',
      delayMs: 0,
      exitCode: ExitCode.Ok,
    });
    this.#post?.emergency(reason, by);
    let latched = true;
    try {
      const time = new Date().toISOString();
      // In their order: the last one's reason is the one that is kept.
      this.#latching = this.#latching
        .catch(() => undefined)
        .then(() => setLatch(stateDir, { time, by, reason }));
      if (!(await within(LATCH_MS, this.#latching)))
        throw new Error(`the disk has not answered for ${seconds(LATCH_MS)}s`);
      this.#log.warn(`Latched: the service will not start before "master-agent unlatch"`);
    } catch (error) {
      latched = false;
      this.#log.error(
        { err: error },
        `The latch could not be kept in ${stateDir}: ${messageOf(error)}. Nothing prevents a restart`,
      );
    }
    this.#requestAudit.emergency(reason, by, latched);
    return latched;
  }

  /** Without its witness the service does not go on. */
  #auditLost(error: Error): void {
    this.#log.error({ err: error }, `The audit log cannot be written: ${messageOf(error)}`);
    this.#begin({
      reason: 'audit',
      announcement: 'The audit log is lost.',
      delayMs: 0,
      exitCode: ExitCode.AuditLost,
    });
  }

  /** The application has broken in a way no request can be blamed for: stop with what can still be saved. */
  crash(origin: string, error: unknown): Promise<ShutdownReport> {
    this.#log.fatal({ err: error }, `Crash (${origin}): ${messageOf(error)}`);
    this.#begin({
      reason: 'crash',
      announcement: `The application has crashed.`,
      delayMs: 0,
      exitCode: ExitCode.Internal,
    });
    return this.stopped;
  }

  /** The process ends in this turn: what the application's own order for it has cut is on record. */
  lose(code: number): void {
    if (this.state !== 'stopped') {
      this.#log.fatal(`The application has ended the process, with ${code}, while it was ${this.state}`);
      // A supervisor tells of its workers' requests itself.
      for (const exchange of this.#post === undefined ? this.#connections.exchanges() : []) {
        logCut(this.#log, exchange, 'the process ends');
        this.#requestAudit.ended(exchange, 'cut');
      }
    }
    this.#requestAudit.closeNow();
  }

  /** The first order begins the stop. A later one may make it graver, or end its lame duck: what cannot wait locks now. */
  #begin(why: Why): void {
    this.#ordered = graverOf(this.#ordered, why.exitCode);
    if (why.delayMs === 0) this.#hurry.lockNow.resolve();
    this.#finishing ??= this.#finish(why).then(this.#over.resolve, this.#over.reject);
    // A lame duck is no state of its own, but everybody who watches wants to see it.
    this.#opsServer?.changed();
  }

  async #finish(why: Why): Promise<ShutdownReport> {
    const startedAt = new Date();
    const { enableFailSafe, shutdownTimeoutMs } = this.#config;
    const result = await shutdown(
      {
        lifecycle: this.#lifecycle,
        listener: this.#listener,
        gate: this.#gate,
        connections: this.#connections,
        inFlight: this.#inFlight,
        log: this.#log,
        lifecycleLog: this.#lifecycleLog,
        outcomes: this.#outcomes,
        locked: (inFlight) => {
          this.#inFlightAtLock = inFlight;
          this.#post?.locked(inFlight, this.#ordered);
        },
        drained: (cut, forced) => this.#post?.drained(cut, forced),
        stopApp: () => this.#stopApp(),
        closeAudit: async () => {
          // Its record belongs in the log.
          await within(
            LATCH_MS,
            this.#latching.catch(() => undefined),
          );
          return this.#requestAudit.close();
        },
      },
      {
        ...why,
        exitCode: () => this.#ordered,
        announcement: `${why.announcement} Initiating graceful shutdown${enableFailSafe ? ' (fail-safe)' : ''}...`,
        timeoutMs: shutdownTimeoutMs,
        failSafe: enableFailSafe,
        lockNow: this.#hurry.lockNow.promise,
        cutNow: this.#hurry.cutNow.promise,
      },
    );
    const report = reportOf(result, startedAt);
    await this.#keep(report);
    this.#lifecycleLog.info({ report }, 'Service shutdown complete');
    await this.#closeOpsServer(report);
    return report;
  }

  /** A start that was abandoned gets a moment to settle: only what has started can be stopped. */
  async #stopApp(): Promise<void> {
    if (this.#app === undefined && this.#starting !== undefined) {
      await within(ABANDON_MS, this.#starting);
      // It may have come as far as listening meanwhile.
      this.#listener.close();
    }
    await this.#app?.stop?.();
  }

  async #keep(report: ShutdownReport): Promise<void> {
    try {
      if (!(await within(DISK_MS, this.#record?.close(report) ?? Promise.resolve())))
        throw new Error(`the disk has not answered for ${seconds(DISK_MS)}s`);
    } catch (error) {
      this.#log.error({ err: error }, `The report of this stop could not be kept: ${messageOf(error)}`);
    }
  }

  async #closeOpsServer(report?: ShutdownReport): Promise<void> {
    this.#loopDelay.end();
    await this.#opsServer?.close(report);
  }

  #ended(exchange: Exchange, outcome: Outcome): void {
    this.#outcomes[outcome] += 1;
    this.#requestAudit.ended(exchange, outcome);
  }

  #attempted(attempt: Attempt, address: string): void {
    const line = `Administrator's route used from ${address}: ${attempt}`;
    if (attempt === 'accepted') this.#log.info(line);
    else this.#log.warn(line);
    this.#requestAudit.attempt(attempt, address);
  }
}

function reportOf(result: ShutdownResult, startedAt: Date): ShutdownReport {
  return {
    unclean: false,
    pid: process.pid,
    version,
    reason: result.reason,
    started_at: startedAt.toISOString(),
    stopped_at: new Date().toISOString(),
    duration_seconds: Math.round(result.durationMs) / 1000,
    in_flight_at_lock: result.inFlightAtLock,
    completed: result.completed,
    aborted: result.aborted,
    cut: result.cut,
    rejected: result.rejected,
    exit_code: result.exitCode,
  };
}

/** What a start that has failed comes to, for those who wait for its end. It is in no file: the run never began. */
function failedStart(error: unknown): ShutdownResult {
  return {
    reason: 'failed start',
    durationMs: 0,
    inFlightAtLock: 0,
    completed: 0,
    aborted: 0,
    cut: [],
    rejected: 0,
    exitCode:
      error instanceof StartError || error instanceof ConfigError ? error.exitCode : ExitCode.Internal,
  };
}
