import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { hasCode, messageOf } from '../error.ts';
import { Connections } from '../http/connections.ts';
import { applyLimits, createDoor, type Door } from '../http/door.ts';
import type { Exchange, Outcome } from '../http/exchange.ts';
import { Gate } from '../http/gate.ts';
import { InFlight } from '../http/in-flight.ts';
import { Router } from '../http/router.ts';
import { seconds, within } from '../lifecycle/deadline.ts';
import { ExitCode, StartError } from '../lifecycle/exit-code.ts';
import { readLatch, setLatch } from '../lifecycle/latch.ts';
import { Lifecycle, type State } from '../lifecycle/lifecycle.ts';
import { ShutdownRecord, type ShutdownReport } from '../lifecycle/shutdown-record.ts';
import { signalNumber } from '../lifecycle/signals.ts';
import { type Admin, type Attempt, Credential } from '../routes/admin.ts';
import { createOperatorDoor } from '../routes/operator-door.ts';
import type { Status } from '../routes/status.ts';
import { addOperatorRoutes, addServiceRoutes, type Facts } from '../routes/table.ts';
import { version } from '../version.ts';
import { type App, type AppSource, assertAppFile, loadApp } from './app.ts';
import { readToken } from './credential.ts';
import { factsOf } from './facts.ts';
import { addressOf, listen, probe, urlOf } from './listen.ts';
import { type ShutdownPlan, type ShutdownResult, shutdown, stopAccepting } from './shutdown.ts';
import { auditFile, Witness } from './witness.ts';

/** How long an application's start() may take to settle after the service was told to stop. */
const ABANDON_MS = 1_000;
/** What writing the audit log and the report may take after the deadline. */
const FLUSH_MS = 5_000;

/** Who wants the service stopped, and how much of a hurry there is. */
type Why = Pick<ShutdownPlan, 'reason' | 'announcement' | 'delayMs' | 'exitCode'>;

const DOOR = { host: 'HOST', port: 'PORT' } as const;
const OPERATOR_DOOR = { host: 'OPS_HOST', port: 'OPS_PORT' } as const;

/** One service: its parts, and the ways in which it begins, changes and ends. */
export class Service {
  readonly #log: Logger;
  readonly #source: AppSource;
  readonly #witness: Witness;
  readonly #lifecycle: Lifecycle;
  readonly #inFlight = new InFlight();
  readonly #connections = new Connections();
  readonly #router = new Router();
  readonly #gate: Gate;
  readonly #door: Door;
  readonly #facts: Facts;
  readonly #admin: Admin;
  readonly #credential = new Credential(undefined);
  readonly #outcomes: Record<Outcome, number> = { completed: 0, aborted: 0, cut: 0 };
  readonly #hurry = { lockNow: deferred<void>(), cutNow: deferred<void>() };
  readonly #over = deferred<ShutdownReport>();
  #config: Config;
  #operatorDoor: Server | undefined;
  #record: ShutdownRecord | undefined;
  #starting: Promise<void> | undefined;
  /** Set once its start() is done: only what has started can be stopped. */
  #app: App | undefined;
  #finishing: Promise<void> | undefined;

  constructor(source: AppSource, config: Config, log: Logger) {
    this.#source = source;
    this.#config = config;
    this.#log = log;
    this.#witness = new Witness(log, (error) => this.#auditLost(error));
    this.#lifecycle = new Lifecycle((state) => this.#witness.state(state));
    const around = { lifecycle: this.#lifecycle, inFlight: this.#inFlight, log };
    this.#gate = new Gate(
      { ...around, connections: this.#connections, summed: (count) => this.#witness.refused(count) },
      config,
    );
    const strict = config.auditMode === 'strict' && auditFile(config) !== undefined;
    this.#door = createDoor(
      {
        ...around,
        gate: this.#gate,
        connections: this.#connections,
        router: this.#router,
        keep: strict ? (exchange, whole, status) => this.#witness.keep(exchange, whole, status) : undefined,
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
      lastShutdown: () => this.#record?.last,
      audit: () => this.#witness.audit,
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
    return addressOf(this.#door.server);
  }

  /** Where the operator's door listens; null while it does not, or when it is off. */
  get operatorAddress(): AddressInfo | null {
    return this.#operatorDoor === undefined ? null : addressOf(this.#operatorDoor);
  }

  /** The node:http server behind the gate, for a program that hands it connections of its own. */
  get server(): Server {
    return this.#door.server;
  }

  /** Resolves when the service has stopped, whoever asked for it. */
  get stopped(): Promise<ShutdownReport> {
    return this.#over.promise;
  }

  /** What `GET /status` tells. */
  status(): Status | Promise<Status> {
    return this.#facts.status();
  }

  /** Resolves when the service runs, or when a stop has overtaken the start. @throws StartError with an exit code */
  start(): Promise<void> {
    this.#starting ??= this.#bringUp();
    return this.#starting;
  }

  /** STARTING, from top to bottom. Each step is a line in the log; whatever fails, all that was opened is closed. */
  async #bringUp(): Promise<void> {
    const config = this.#config;
    const log = this.#log;
    const abandoned = (): boolean => this.#lifecycle.state !== 'starting';
    if (abandoned()) return;
    try {
      this.#checkStopBudget();
      assertUnlatched(config.stateDir);
      if (typeof this.#source === 'string') assertAppFile(this.#source);
      await probe(config.host, config.port, DOOR);
      this.#record = openRecord(config.stateDir);
      const { last } = this.#record;
      if (last?.unclean) {
        log.warn(
          `The run before this one (pid ${last.pid}, started ${last.started_at}) ended without a shutdown`,
        );
      }
      if (config.opsPort !== 'off') {
        const router = new Router();
        addOperatorRoutes(router, this.#facts, this.#admin);
        this.#operatorDoor = createOperatorDoor(router, {
          lifecycle: this.#lifecycle,
          inFlight: this.#inFlight,
          log,
        });
        await listen(this.#operatorDoor, config.opsHost, config.opsPort, OPERATOR_DOOR);
        this.#record.announce(urlOf(this.#operatorDoor));
        log.info(`Operator's door open on ${urlOf(this.#operatorDoor)}`);
      }
      this.#witness.open(config);
      this.#credential.set(readToken(config));
      log.info(
        this.#credential.isSet
          ? "Administrator's credential loaded"
          : "No administrator's credential: /admin is closed (set ADMIN_TOKEN or ADMIN_TOKEN_FILE)",
      );
      if (abandoned()) return;
      await this.#startApp();
      if (abandoned()) return;
      await listen(this.#door.server, config.host, config.port, DOOR);
      if (abandoned()) return;
      this.#lifecycle.to('running');
      log.info(`Service state: RUNNING - Accepting requests on ${urlOf(this.#door.server)}`);
    } catch (error) {
      if (abandoned()) {
        log.warn({ err: error }, `The start was abandoned: ${messageOf(error)}`);
        return;
      }
      this.#lifecycle.to('stopped');
      // There is nothing left to stop: who asks for it all the same finds it done.
      this.#finishing = Promise.resolve();
      stopAccepting(this.#door.server);
      await this.#abandonApp();
      this.#closeOperatorDoor();
      await this.#witness.close();
      this.#record?.abandon();
      this.#over.resolve(reportOf(failedStart(error), new Date()));
      throw error;
    }
  }

  async #startApp(): Promise<void> {
    const name = typeof this.#source === 'string' ? this.#source : 'the application';
    const app = typeof this.#source === 'string' ? await loadApp(this.#source) : this.#source;
    let part = 'start()';
    try {
      await app.start?.({ log: this.#log, config: this.#config, stopping: this.#lifecycle.stopping });
      this.#app = app;
      part = 'routes()';
      app.routes?.(this.#router);
      if (this.#router.takesUpgrades) this.#door.takeUpgrades();
    } catch (error) {
      throw new StartError(`APP: ${part} of ${name} failed: ${messageOf(error)}`, ExitCode.Internal, {
        cause: error,
      });
    }
    const none = Object.keys(app).length === 0;
    this.#log.info(none ? "No application: the service's own routes alone" : `Application started: ${name}`);
  }

  /** The start has failed for another reason than the application: it must let go of what it has opened. */
  async #abandonApp(): Promise<void> {
    try {
      await within(ABANDON_MS, Promise.resolve(this.#app?.stop?.()));
    } catch (error) {
      this.#log.error({ err: error }, `The application's stop() failed: ${messageOf(error)}`);
    }
  }

  /** Reopens the files that something else may have renamed: the audit log. */
  reopen(): void {
    this.#witness.reopen();
  }

  /** Takes over the settings that can change while running. The caller has compared the others. */
  reload(config: Config): void {
    // Read first: a token file that is missing must leave everything as it was.
    const token = readToken(config);
    this.#config = config;
    this.#credential.set(token);
    this.#gate.configure(config);
    applyLimits(this.#door.server, config);
    this.#log.level = config.logLevel;
    this.#checkStopBudget();
  }

  /**
   * Stops the service: locks it, lets what is in flight end, and leaves. Only the first call begins a stop; each
   * resolves with the same report when it is over.
   * @param reason for the log and the report; a signal's name, or whatever the caller is
   */
  stop(reason = 'stop()'): Promise<ShutdownReport> {
    const signal = reason.startsWith('SIG') ? signalNumber(reason as NodeJS.Signals) : undefined;
    this.#begin({
      reason,
      announcement: signal === undefined ? `Asked to stop by ${reason}.` : `Received signal ${signal}.`,
      delayMs: this.#config.shutdownDelayMs,
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

  /** Locks at once, whatever is under way, latches the service and stops it. It will not start before it is unlatched. */
  emergencyShutdown(reason: string, by = 'the program'): Promise<ShutdownReport> {
    this.#lockAndLatch(reason, by);
    return this.stopped;
  }

  /** The lock comes first. @returns whether the latch is on disk */
  #lockAndLatch(reason: string, by: string): boolean {
    const { log, stateDir } = { log: this.#log, stateDir: this.#config.stateDir };
    const told = `Emergency shutdown by ${by}${reason === '' ? '' : `: ${JSON.stringify(reason)}`}`;
    log.warn({ by, emergency: reason }, told);
    this.#hurry.lockNow.resolve();
    this.#begin({
      reason: 'emergency',
      announcement: 'Emergency shutdown.',
      delayMs: 0,
      exitCode: ExitCode.Ok,
    });
    let latched = true;
    try {
      setLatch(stateDir, { time: new Date().toISOString(), by, reason });
      log.warn(`Latched: the service will not start before "master-agent unlatch"`);
    } catch (error) {
      latched = false;
      log.error(
        { err: error },
        `The latch could not be kept in ${stateDir}: ${messageOf(error)}. Nothing prevents a restart`,
      );
    }
    this.#witness.emergency(reason, by, latched);
    return latched;
  }

  /** Without its witness the service does not go on. */
  #auditLost(error: Error): void {
    this.#log.error({ err: error }, `The audit log cannot be written: ${messageOf(error)}`);
    this.#hurry.lockNow.resolve();
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

  #begin(why: Why): void {
    this.#finishing ??= this.#finish(why).then(this.#over.resolve, this.#over.reject);
  }

  async #finish(why: Why): Promise<ShutdownReport> {
    const startedAt = new Date();
    const { enableFailSafe, shutdownTimeoutMs } = this.#config;
    const result = await shutdown(
      {
        lifecycle: this.#lifecycle,
        server: this.#door.server,
        gate: this.#gate,
        connections: this.#connections,
        inFlight: this.#inFlight,
        log: this.#log,
        outcomes: this.#outcomes,
        stopApp: () => this.#stopApp(),
        closeAudit: () => this.#witness.close(),
      },
      {
        ...why,
        announcement: `${why.announcement} Initiating graceful shutdown${enableFailSafe ? ' (fail-safe)' : ''}...`,
        timeoutMs: shutdownTimeoutMs,
        failSafe: enableFailSafe,
        lockNow: this.#hurry.lockNow.promise,
        cutNow: this.#hurry.cutNow.promise,
      },
    );
    const report = reportOf(result, startedAt);
    this.#keep(report);
    this.#log.info({ report }, 'Service shutdown complete');
    this.#closeOperatorDoor();
    return report;
  }

  /** A start that was abandoned gets a moment to settle: only what has started can be stopped. */
  async #stopApp(): Promise<void> {
    if (this.#app === undefined && this.#starting !== undefined) {
      await within(ABANDON_MS, this.#starting);
      // It may have come as far as listening meanwhile.
      stopAccepting(this.#door.server);
    }
    await this.#app?.stop?.();
  }

  #keep(report: ShutdownReport): void {
    try {
      this.#record?.close(report);
    } catch (error) {
      this.#log.error({ err: error }, `The report of this stop could not be kept: ${messageOf(error)}`);
    }
  }

  #closeOperatorDoor(): void {
    this.#operatorDoor?.close();
    this.#operatorDoor?.closeAllConnections();
  }

  #ended(exchange: Exchange, outcome: Outcome): void {
    this.#outcomes[outcome] += 1;
    this.#witness.ended(exchange, outcome);
  }

  #attempted(attempt: Attempt, address: string): void {
    const line = `Administrator's route used from ${address}: ${attempt}`;
    if (attempt === 'accepted') this.#log.info(line);
    else this.#log.warn(line);
    this.#witness.attempt(attempt, address);
  }

  #checkStopBudget(): void {
    const { stopBudgetMs, shutdownDelayMs, shutdownTimeoutMs } = this.#config;
    const needed = shutdownDelayMs + shutdownTimeoutMs + FLUSH_MS;
    if (stopBudgetMs > 0 && needed > stopBudgetMs) {
      this.#log.warn(
        `STOP_BUDGET: a stop can take ${seconds(needed)}s (SHUTDOWN_DELAY + SHUTDOWN_TIMEOUT + ` +
          `${seconds(FLUSH_MS)}s for the flush), but the platform kills after ${seconds(stopBudgetMs)}s`,
      );
    }
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

/** @throws StartError 75 when an emergency shutdown has latched the service */
function assertUnlatched(stateDir: string): void {
  const latch = readLatch(stateDir);
  if (latch === undefined) return;
  const why = latch.reason === '' ? '' : ` (${JSON.stringify(latch.reason)})`;
  throw new StartError(
    `Latched by an emergency shutdown at ${latch.time} by ${latch.by}${why}. To start again: master-agent unlatch`,
    ExitCode.Latched,
  );
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
    exitCode: error instanceof StartError ? error.exitCode : ExitCode.Internal,
  };
}

/** @throws StartError 78 when the directory cannot be used, 74 when it can as soon as there is room again */
function openRecord(stateDir: string): ShutdownRecord {
  try {
    return new ShutdownRecord(stateDir);
  } catch (error) {
    throw new StartError(
      `STATE_DIR: want a directory that can be written, got "${stateDir}": ${messageOf(error)}`,
      hasCode(error, 'ENOSPC', 'EDQUOT', 'EIO') ? ExitCode.AuditLost : ExitCode.Config,
      { cause: error },
    );
  }
}

interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (reason: unknown) => void;
}

function deferred<T>(): Deferred<T> {
  let settle: Omit<Deferred<T>, 'promise'> | undefined;
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject };
  });
  return { promise, ...(settle as Omit<Deferred<T>, 'promise'>) };
}
