import { createServer, type Server, type Socket } from 'node:net';
import type { Logger } from 'pino';
import type { AuditLog } from '../../audit/audit-log.ts';
import { openAudit } from '../../audit/open-audit.ts';
import { type Config, ConfigError, frozenDifferences } from '../../config/settings.ts';
import { checkStopBudget } from '../../control/stop-budget.ts';
import { messageOf } from '../../error.ts';
import { ExitCode, graverOf } from '../../exit-code.ts';
import type { ReloadOutcome } from '../../lifecycle/last-reload.ts';
import { ShutdownRecord, type ShutdownReport } from '../../lifecycle/last-shutdown.ts';
import { assertUnlatched, setLatch } from '../../lifecycle/latch.ts';
import { Lifecycle } from '../../lifecycle/lifecycle.ts';
import { type Attempt, Credential } from '../../ops/admin.ts';
import { type OpsServer, openOpsServer } from '../../ops/ops-server.ts';
import type { Emergency } from '../../ops/status.ts';
import { deferred } from '../../platform/deferred.ts';
import {
  handedSocket,
  listen,
  listenOnHanded,
  probe,
  SERVICE_ADDRESS,
  stopAccepting,
  urlOf,
} from '../../platform/listen.ts';
import { readAuditKey, readToken } from '../../platform/secrets.ts';
import { signalNumber } from '../../platform/signals.ts';
import type { Notifier } from '../../platform/systemd.ts';
import { BEAT_MS } from './messages.ts';
import { Reloads } from './reloads.ts';
import { logCut, type StopPlan, stopAll } from './stop.ts';
import { supervisorFacts } from './supervisor-facts.ts';
import type { WorkerHandle } from './worker-handle.ts';
import { WorkerPool } from './worker-pool.ts';

/** Who wants the service stopped, and how much of a hurry there is. */
type Why = Pick<StopPlan, 'reason' | 'announcement' | 'delayMs'> & { readonly exitCode: ExitCode };

/** What a supervisor works with. */
export interface SupervisorParts {
  readonly config: Config;
  readonly log: Logger;
  readonly notifier: Notifier;
  /** Reads the settings anew, and the variables they came from. @throws ConfigError */
  readonly configure: () => { config: Config; variables: NodeJS.ProcessEnv };
  readonly variables: NodeJS.ProcessEnv;
}

/**
 * Owns what there is one of: the signals' meaning, the listening socket, the ops server, the deadline. It runs
 * no application code, so nothing an application does can keep it from any of that.
 */
export class Supervisor {
  readonly #log: Logger;
  readonly #notifier: Notifier;
  readonly #configure: SupervisorParts['configure'];
  readonly #lifecycle: Lifecycle;
  readonly #credential = new Credential(undefined);
  readonly #pool: WorkerPool;
  readonly #reloads: Reloads;
  /** Accepts for the workers; what comes is paused, so no byte of it is read here. */
  readonly #server: Server;
  readonly #hurry = { lockNow: deferred<void>(), cutNow: deferred<void>() };
  readonly #over = deferred<ShutdownReport>();
  #config: Config;
  #variables: NodeJS.ProcessEnv;
  #opsServer: OpsServer | undefined;
  #record: ShutdownRecord | undefined;
  #audit: AuditLog | undefined;
  #finishing: Promise<void> | undefined;
  /** What a stop that goes well ends with: the gravest of what ordered it. */
  #ordered: ExitCode = ExitCode.Ok;
  #accepted = 0;
  #inFlightAtLock: number | undefined;
  #emergency: Emergency | undefined;

  constructor({ config, log, notifier, configure, variables }: SupervisorParts) {
    this.#config = config;
    this.#variables = variables;
    this.#log = log;
    this.#notifier = notifier;
    this.#configure = configure;
    this.#lifecycle = new Lifecycle((state) => {
      this.#audit?.record('state', { state });
      this.#opsServer?.changed();
    });
    this.#pool = new WorkerPool(log, {
      cut: (requests) => logCut(requests, log),
      died: (worker) => this.#recordDeath(worker),
      changed: () => this.#opsServer?.changed(),
      emergency: (reason, by) => this.#lockAndStop(reason, by),
      auditLost: () => this.#auditLost(new Error('a worker could not write it')),
    });
    this.#reloads = new Reloads({
      log,
      stateDir: config.stateDir,
      reload: () => this.#reloadOnce(),
      generation: () => this.#pool.generation,
      began: () => {
        notifier.reloading();
        this.#opsServer?.changed();
      },
      ended: (outcome) => this.#reloaded(outcome),
    });
    // As node:http has it for its own: without noDelay small pieces of an answer wait for the client's acknowledgement.
    const options = { pauseOnConnect: true, allowHalfOpen: true, noDelay: true };
    this.#server = createServer(options, (socket) => this.#accept(socket));
  }

  /** Resolves when the service has stopped, whoever asked for it. */
  get stopped(): Promise<ShutdownReport> {
    return this.#over.promise;
  }

  /** STARTING, from top to bottom. @throws StartError with an exit code */
  async start(): Promise<void> {
    const config = this.#config;
    const abandoned = (): boolean => this.#lifecycle.state !== 'starting';
    if (abandoned()) return;
    try {
      await this.#openSingletons();
      if (abandoned()) return;
      const plan = { generation: 1, config, variables: this.#variables };
      const workers = await this.#pool.startGeneration(plan);
      if (abandoned()) return;
      this.#pool.activate(workers, plan);
      const fd = handedSocket();
      if (fd === undefined) await listen(this.#server, config.host, config.port, SERVICE_ADDRESS);
      else await listenOnHanded(this.#server, fd);
      if (abandoned()) return;
      this.#lifecycle.to('running');
      this.#log.info(`Service state: RUNNING - Accepting requests on ${urlOf(this.#server)}`);
      this.#watch();
      this.#notifier.ready();
      this.#notifier.status(this.#serving());
    } catch (error) {
      if (abandoned()) {
        this.#log.warn(`The start was abandoned: ${messageOf(error)}`);
        return;
      }
      await this.#giveUp(error);
      throw error;
    }
  }

  async #openSingletons(): Promise<void> {
    const config = this.#config;
    checkStopBudget(config, this.#log);
    assertUnlatched(config.stateDir);
    if (handedSocket() === undefined) await probe(config.host, config.port, SERVICE_ADDRESS);
    this.#record = ShutdownRecord.open(config.stateDir);
    if (this.#record.last?.unclean) {
      const { pid, started_at } = this.#record.last;
      this.#log.warn(`The run before this one (pid ${pid}, started ${started_at}) ended without a shutdown`);
    }
    this.#opsServer = await openOpsServer(
      config,
      supervisorFacts({
        lifecycle: this.#lifecycle,
        pool: this.#pool,
        reloads: this.#reloads,
        stop: () => ({ inFlightAtLock: this.#inFlightAtLock, emergency: this.#emergency }),
        lastShutdown: () => this.#record?.last,
        audit: () => this.#audit,
      }),
      {
        credential: this.#credential,
        attempted: (attempt, address) => this.#attempted(attempt, address),
        emergencyShutdown: (reason, by) => this.#lockAndLatch(reason, by),
      },
      { lifecycle: this.#lifecycle, log: this.#log },
    );
    if (this.#opsServer !== undefined) this.#record.announce(urlOf(this.#opsServer.server));
    if (this.#lifecycle.state !== 'starting') return;
    this.#openAudit();
    this.#credential.set(readToken(config));
  }

  #openAudit(): void {
    this.#audit = openAudit(this.#config, { log: this.#log, lost: (error) => this.#auditLost(error) });
    this.#audit?.record('state', { state: 'starting' });
  }

  async #giveUp(error: unknown): Promise<void> {
    this.#lifecycle.to('stopped');
    this.#finishing = Promise.resolve();
    stopAccepting(this.#server);
    await this.#pool.killAll();
    await this.#closeOpsServer();
    await this.#audit?.close();
    this.#record?.abandon();
    this.#over.reject(error);
    this.#over.promise.catch(() => undefined);
  }

  #accept(socket: Socket): void {
    this.#accepted += 1;
    this.#pool.hand(socket);
  }

  /** Once a second: replaces workers whose loop stands still, and feeds the watchdog while the others turn. */
  #watch(): void {
    const timer = setInterval(() => {
      // Behind the next look at the channels: when this process itself has stood still, the beats wait there.
      setImmediate(() => this.#pool.endBlocked(this.#config.heartbeatTimeoutMs));
    }, BEAT_MS);
    const { watchdogMs } = this.#notifier;
    const feed =
      watchdogMs === undefined
        ? undefined
        : setInterval(() => {
            if (this.#pool.isFresh(this.#config.heartbeatTimeoutMs + 2 * BEAT_MS)) this.#notifier.alive();
          }, watchdogMs / 3);
    this.#lifecycle.stopping.addEventListener('abort', () => {
      clearInterval(timer);
      clearInterval(feed);
      // A drain is not a hang: it has a deadline of its own.
      if (watchdogMs !== undefined) setInterval(() => this.#notifier.alive(), watchdogMs / 3).unref();
    });
  }

  /**
   * New workers with the code and the settings on disk; the old ones retire when all new ones are ready, and stay
   * when one is not. One reload at a time; of those that are asked for meanwhile one more follows.
   */
  reload(): void {
    this.#log.info('Received signal 1. Reloading...');
    this.#audit?.reopen();
    this.#pool.tellAll({ type: 'reopen' });
    this.#reloads.ask();
  }

  /** @throws Error that says why the old generation stays */
  async #reloadOnce(): Promise<void> {
    const { state, order } = this.#lifecycle;
    if (state !== 'running' || order !== undefined) {
      throw new Error(`the service is ${order === undefined ? state : 'stopping'}`);
    }
    const { config, variables } = this.#configure();
    const frozen = frozenDifferences(this.#config, config, 'workers');
    if (frozen.length > 0)
      throw new ConfigError(frozen.map((name) => `${name}: want a restart to change it`));
    const token = readToken(config);
    readAuditKey(config);
    const plan = { generation: this.#pool.generation + 1, config, variables };
    const workers = await this.#pool.startGeneration(plan);
    this.#config = config;
    this.#variables = variables;
    this.#credential.set(token);
    this.#log.level = config.logLevel;
    checkStopBudget(config, this.#log);
    this.#pool.activate(workers, plan);
  }

  #reloaded({ outcome, reason, generation }: ReloadOutcome): void {
    this.#audit?.record('reload', { outcome, reason, generation });
    this.#opsServer?.changed();
    // A stop has its own words for the service manager.
    if (this.#lifecycle.order !== undefined) return;
    if (this.#lifecycle.state === 'running') this.#notifier.ready();
    this.#notifier.status(this.#serving());
  }

  stop(signal: NodeJS.Signals): Promise<ShutdownReport> {
    this.#begin({
      reason: signal,
      announcement: `Received signal ${signalNumber(signal)}.`,
      delayMs: this.#config.shutdownDelayMs,
      exitCode: ExitCode.Ok,
    });
    return this.stopped;
  }

  force(signal: NodeJS.Signals): Promise<ShutdownReport> {
    const stopped = this.stop(signal);
    this.#hurry.cutNow.resolve();
    this.#pool.tellAll({ type: 'cut' });
    return stopped;
  }

  crash(origin: string, error: unknown): Promise<ShutdownReport> {
    this.#log.fatal({ err: error }, `Crash of the supervisor (${origin}): ${messageOf(error)}`);
    this.#begin({
      reason: 'crash',
      announcement: 'The supervisor has crashed.',
      delayMs: 0,
      exitCode: ExitCode.Internal,
    });
    return this.stopped;
  }

  /** No application runs here: if the process ends early, nothing of it is in flight. */
  lose(): void {}

  /** The lock comes first. @returns whether the latch is on disk */
  #lockAndLatch(reason: string, by: string): boolean {
    const { stateDir } = this.#config;
    this.#lockAndStop(reason, by);
    let latched = true;
    try {
      setLatch(stateDir, { time: new Date().toISOString(), by, reason });
      this.#log.warn('Latched: the service will not start before "master-agent unlatch"');
    } catch (error) {
      latched = false;
      this.#log.error(
        `The latch could not be kept in ${stateDir}: ${messageOf(error)}. Nothing prevents a restart`,
      );
    }
    this.#audit?.record('emergency', { by, reason, latched });
    return latched;
  }

  /** All workers lock when one of them was told to; that one has set the latch. */
  #lockAndStop(reason: string, by: string): void {
    this.#emergency ??= { by, reason };
    this.#log.warn(
      { by, emergency: reason },
      `Emergency shutdown by ${by}${reason === '' ? '' : `: ${JSON.stringify(reason)}`}`,
    );
    this.#begin({
      reason: 'emergency',
      announcement: 'Emergency shutdown.',
      delayMs: 0,
      exitCode: ExitCode.Ok,
    });
  }

  #auditLost(error: Error): void {
    this.#log.error(`The audit log cannot be written: ${messageOf(error)}`);
    this.#begin({
      reason: 'audit',
      announcement: 'The audit log is lost.',
      delayMs: 0,
      exitCode: ExitCode.AuditLost,
    });
  }

  /** The first order begins the stop. A later one may make it graver, or end its lame duck: what cannot wait locks now. */
  #begin(why: Why): void {
    this.#ordered = graverOf(this.#ordered, why.exitCode);
    if (why.delayMs === 0) {
      this.#hurry.lockNow.resolve();
      this.#pool.tellAll({ type: 'lock' });
    }
    this.#finishing ??= this.#finish(why).then(this.#over.resolve, this.#over.reject);
    // A lame duck is no state of its own, but everybody who watches wants to see it.
    this.#opsServer?.changed();
  }

  async #finish(why: Why): Promise<ShutdownReport> {
    const { enableFailSafe, shutdownTimeoutMs } = this.#config;
    const report = await stopAll(
      {
        log: this.#log,
        notifier: this.#notifier,
        lifecycle: this.#lifecycle,
        pool: this.#pool,
        server: this.#server,
        accepted: () => this.#accepted,
        locked: (inFlight) => {
          this.#inFlightAtLock = inFlight;
          this.#opsServer?.changed();
        },
        closeAudit: async () => this.#audit === undefined || this.#audit.close(),
      },
      {
        ...why,
        exitCode: () => this.#ordered,
        timeoutMs: shutdownTimeoutMs,
        failSafe: enableFailSafe,
        lockNow: this.#hurry.lockNow.promise,
        cutNow: this.#hurry.cutNow.promise,
      },
    );
    try {
      this.#record?.close(report);
    } catch (error) {
      this.#log.error(`The report of this stop could not be kept: ${messageOf(error)}`);
    }
    this.#log.info({ report }, 'Service shutdown complete');
    await this.#closeOpsServer(report);
    return report;
  }

  #serving(): string {
    return `Serving: generation ${this.#pool.generation}, ${this.#pool.size} workers`;
  }

  /** A worker can no longer put on record what was lost with it. */
  #recordDeath({ pid, end, lost, heardMs }: WorkerHandle): void {
    const heard_ms_ago = Math.round(performance.now() - heardMs);
    this.#audit?.record('worker_end', { pid, end, heard_ms_ago });
    for (const request of lost) this.#audit?.record('cut', { pid, ...request });
    // The stop names all that was cut in one place.
    if (this.#lifecycle.order === undefined) logCut(lost, this.#log);
  }

  #attempted(attempt: Attempt, address: string): void {
    const line = `Administrator's route used from ${address}: ${attempt}`;
    if (attempt === 'accepted') this.#log.info(line);
    else this.#log.warn(line);
    this.#audit?.record('admin', { action: 'emergency-shutdown', client: address, result: attempt });
  }

  async #closeOpsServer(report?: ShutdownReport): Promise<void> {
    await this.#opsServer?.close(report);
  }
}
