import type { Server as HttpServer } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import type { Logger } from 'pino';
import { AuditLog } from '../audit/audit-log.ts';
import { auditFile, type Config, ConfigError, frozenDifferences } from '../config.ts';
import { messageOf } from '../error.ts';
import { afterReading, seconds, within } from '../lifecycle/deadline.ts';
import { deferred } from '../lifecycle/deferred.ts';
import { ExitCode, StartError } from '../lifecycle/exit-code.ts';
import { assertUnlatched, setLatch } from '../lifecycle/latch.ts';
import { Lifecycle } from '../lifecycle/lifecycle.ts';
import {
  DOOR,
  handedSocket,
  listen,
  listenOnHanded,
  probe,
  stopAccepting,
  urlOf,
} from '../lifecycle/listen.ts';
import { keepReloadOutcome, type ReloadOutcome } from '../lifecycle/reload-record.ts';
import { readAuditKey, readToken } from '../lifecycle/secrets.ts';
import { type CutRequest, ShutdownRecord, type ShutdownReport } from '../lifecycle/shutdown-record.ts';
import { signalNumber } from '../lifecycle/signals.ts';
import { checkStopBudget } from '../lifecycle/stop-budget.ts';
import { type Attempt, Credential } from '../routes/admin.ts';
import { openOperatorDoor } from '../routes/operator-door.ts';
import { drainLine } from '../routes/status.ts';
import type { Notifier } from '../systemd/notify.ts';
import { version } from '../version.ts';
import { Crew } from './crew.ts';
import { BEAT_MS } from './messages.ts';
import { supervisorFacts } from './supervisor-facts.ts';
import type { WorkerHandle } from './worker-handle.ts';

/** How long workers may take to say how much is in flight before it is told without them. */
const COUNT_MS = 250;
/** What a worker gets beyond the deadline to cut by itself; one that has not then is blocked. */
const CUT_GRACE_MS = 500;
/** What a worker gets to leave once nothing is in flight: its application's stop(), its audit log. */
const LEAVE_MS = 6_000;
/** Holding the door: how long it must be quiet, and how often we look at most. */
const HOLD_MS = 3;
const HOLD_ROUNDS = 25;

interface Why {
  readonly reason: string;
  readonly announcement: string;
  readonly delayMs: number;
  readonly exitCode: ExitCode;
}

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
 * Owns what there is one of: the signals' meaning, the listening socket, the operator's door, the deadline. It runs
 * no application code, so nothing an application does can keep it from any of that.
 */
export class Supervisor {
  readonly #log: Logger;
  readonly #notifier: Notifier;
  readonly #configure: SupervisorParts['configure'];
  readonly #lifecycle: Lifecycle;
  readonly #credential = new Credential(undefined);
  readonly #crew: Crew;
  /** Accepts for the workers; what comes is paused, so no byte of it is read here. */
  readonly #server: Server;
  readonly #hurry = { lockNow: deferred<void>(), cutNow: deferred<void>() };
  readonly #over = deferred<ShutdownReport>();
  #config: Config;
  #variables: NodeJS.ProcessEnv;
  #operatorDoor: HttpServer | undefined;
  #record: ShutdownRecord | undefined;
  #audit: AuditLog | undefined;
  #finishing: Promise<void> | undefined;
  #reloading: Promise<void> | undefined;
  #reloadQueued = false;
  #lastReload: ReloadOutcome | undefined;
  readonly #reloads = { done: 0, refused: 0 };
  #accepted = 0;

  constructor({ config, log, notifier, configure, variables }: SupervisorParts) {
    this.#config = config;
    this.#variables = variables;
    this.#log = log;
    this.#notifier = notifier;
    this.#configure = configure;
    this.#lifecycle = new Lifecycle((state) => this.#audit?.record('state', { state }));
    this.#crew = new Crew(log, {
      cut: (worker, requests) => this.#recordCut(worker, requests),
      emergency: (reason, by) => this.#lockAndStop(reason, by),
      auditLost: () => this.#auditLost(new Error('a worker could not write it')),
    });
    this.#server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) =>
      this.#accept(socket),
    );
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
      await this.#openPremises();
      if (abandoned()) return;
      const workers = await this.#crew.raise(1, config, this.#variables);
      if (abandoned()) return;
      this.#crew.appoint(workers, config, this.#variables);
      const fd = handedSocket();
      if (fd === undefined) await listen(this.#server, config.host, config.port, DOOR);
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

  async #openPremises(): Promise<void> {
    const config = this.#config;
    checkStopBudget(config, this.#log);
    assertUnlatched(config.stateDir);
    if (handedSocket() === undefined) await probe(config.host, config.port, DOOR);
    this.#record = ShutdownRecord.open(config.stateDir);
    if (this.#record.last?.unclean) {
      const { pid, started_at } = this.#record.last;
      this.#log.warn(`The run before this one (pid ${pid}, started ${started_at}) ended without a shutdown`);
    }
    this.#operatorDoor = await openOperatorDoor(
      config,
      supervisorFacts({
        lifecycle: this.#lifecycle,
        crew: this.#crew,
        reloads: this.#reloads,
        lastReload: () => this.#lastReload,
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
    if (this.#operatorDoor !== undefined) this.#record.announce(urlOf(this.#operatorDoor));
    this.#openAudit();
    this.#credential.set(readToken(config));
  }

  #openAudit(): void {
    const file = auditFile(this.#config);
    const key = readAuditKey(this.#config);
    if (file === undefined) return;
    try {
      this.#audit = AuditLog.open({
        file,
        key,
        mode: 'batched',
        recover: true,
        lost: (error) => this.#auditLost(error),
        fallback: (line) => this.#log.warn(`Not in the audit log: ${line}`),
      });
    } catch (error) {
      throw new StartError(
        `AUDIT_LOG: want a log that can be written, got "${file}": ${messageOf(error)}`,
        ExitCode.AuditLost,
        { cause: error },
      );
    }
    this.#audit.record('state', { state: 'starting' });
  }

  async #giveUp(error: unknown): Promise<void> {
    this.#lifecycle.to('stopped');
    this.#finishing = Promise.resolve();
    stopAccepting(this.#server);
    await this.#crew.killAll();
    this.#closeOperatorDoor();
    await this.#audit?.close();
    this.#record?.abandon();
    this.#over.reject(error);
    this.#over.promise.catch(() => undefined);
  }

  #accept(socket: Socket): void {
    this.#accepted += 1;
    this.#crew.hand(socket);
  }

  /** Once a second: replaces workers whose loop stands still, and feeds the watchdog while the others turn. */
  #watch(): void {
    const timer = setInterval(() => this.#crew.endBlocked(this.#config.heartbeatTimeoutMs), BEAT_MS);
    const { watchdogMs } = this.#notifier;
    const feed =
      watchdogMs === undefined
        ? undefined
        : setInterval(() => {
            if (this.#crew.isFresh(this.#config.heartbeatTimeoutMs + 2 * BEAT_MS)) this.#notifier.alive();
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
    this.#crew.tellAll({ type: 'reopen' });
    if (this.#reloading !== undefined) {
      this.#reloadQueued = true;
      return;
    }
    this.#reloading = this.#reloadAll().finally(() => {
      this.#reloading = undefined;
    });
  }

  async #reloadAll(): Promise<void> {
    do {
      this.#reloadQueued = false;
      const startedMs = Date.now();
      const beganMs = performance.now();
      this.#notifier.reloading();
      let reason = '';
      try {
        await this.#reloadOnce();
      } catch (error) {
        reason = error instanceof ConfigError ? error.mistakes.join('; ') : messageOf(error);
      }
      const outcome: ReloadOutcome = {
        outcome: reason === '' ? 'done' : 'refused',
        reason,
        started_ms: startedMs,
        duration_ms: Math.round(performance.now() - beganMs),
        pid: process.pid,
        generation: this.#crew.generation,
      };
      this.#reloads[outcome.outcome] += 1;
      this.#lastReload = outcome;
      this.#audit?.record('reload', { outcome: outcome.outcome, reason, generation: outcome.generation });
      if (reason === '') this.#log.info(`Reloaded: generation ${outcome.generation} serves`);
      else this.#log.error(`Reload refused, generation ${outcome.generation} goes on serving: ${reason}`);
      if (this.#lifecycle.state !== 'stopping' && this.#lifecycle.state !== 'stopped') this.#notifier.ready();
      this.#notifier.status(this.#serving());
      try {
        keepReloadOutcome(this.#config.stateDir, outcome);
      } catch (error) {
        this.#log.error(`The outcome of the reload could not be kept: ${messageOf(error)}`);
      }
    } while (this.#reloadQueued);
  }

  /** @throws Error that says why the old generation stays */
  async #reloadOnce(): Promise<void> {
    if (this.#lifecycle.state !== 'running') throw new Error(`the service is ${this.#lifecycle.state}`);
    const { config, variables } = this.#configure();
    const frozen = frozenDifferences(this.#config, config, 'workers');
    if (frozen.length > 0)
      throw new ConfigError(frozen.map((name) => `${name}: want a restart to change it`));
    const token = readToken(config);
    readAuditKey(config);
    const workers = await this.#crew.raise(this.#crew.generation + 1, config, variables);
    if (this.#lifecycle.state !== 'running' || this.#lifecycle.order !== undefined) {
      // A stop has come meanwhile, and it wins.
      for (const worker of workers) worker.kill();
      throw new Error('the service is stopping');
    }
    this.#config = config;
    this.#variables = variables;
    this.#credential.set(token);
    this.#log.level = config.logLevel;
    checkStopBudget(config, this.#log);
    this.#crew.appoint(workers, config, variables);
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
    this.#crew.tellAll({ type: 'cut' });
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
    this.#log.warn(
      { by, emergency: reason },
      `Emergency shutdown by ${by}${reason === '' ? '' : `: ${JSON.stringify(reason)}`}`,
    );
    this.#hurry.lockNow.resolve();
    this.#crew.tellAll({ type: 'lock' });
    this.#begin({
      reason: 'emergency',
      announcement: 'Emergency shutdown.',
      delayMs: 0,
      exitCode: ExitCode.Ok,
    });
  }

  #auditLost(error: Error): void {
    this.#log.error(`The audit log cannot be written: ${messageOf(error)}`);
    this.#hurry.lockNow.resolve();
    this.#crew.tellAll({ type: 'lock' });
    this.#begin({
      reason: 'audit',
      announcement: 'The audit log is lost.',
      delayMs: 0,
      exitCode: ExitCode.AuditLost,
    });
  }

  #begin(why: Why): void {
    this.#finishing ??= this.#finish(why).then(this.#over.resolve, this.#over.reject);
  }

  /** The whole stop of all workers, in the order in which it happens. Each worker runs its own, told by this one. */
  async #finish(why: Why): Promise<ShutdownReport> {
    const log = this.#log;
    const { enableFailSafe, shutdownTimeoutMs } = this.#config;
    const orderedAt = new Date();
    const orderedMs = performance.now();
    log.info(
      { reason: why.reason },
      `${why.announcement} Initiating graceful shutdown${enableFailSafe ? ' (fail-safe)' : ''}...`,
    );
    const order = { reason: why.reason, orderedAt };
    this.#lifecycle.orderStop({
      ...order,
      lockAtMs: orderedMs + why.delayMs,
      deadlineMs: orderedMs + why.delayMs + shutdownTimeoutMs,
    });
    const workers = this.#crew.dismissAll();
    for (const worker of workers) worker.tell({ type: 'stop', reason: why.reason, delayMs: why.delayMs });
    this.#notifier.stopping();
    this.#notifier.extend(why.delayMs + shutdownTimeoutMs + LEAVE_MS);
    if (why.delayMs > 0 && this.#lifecycle.state === 'running') {
      log.info(`Lame duck for ${seconds(why.delayMs)}s: health checks fail, requests are still served`);
      await within(why.delayMs, Promise.race([this.#hurry.lockNow.promise, this.#hurry.cutNow.promise]));
    }

    const deadlineMs = performance.now() + shutdownTimeoutMs;
    this.#lifecycle.orderStop({ ...order, lockAtMs: performance.now(), deadlineMs });
    this.#lifecycle.to('stopping');
    if (!enableFailSafe) stopAccepting(this.#server);
    const inFlightAtLock = await countInFlight(workers);
    log.warn(
      { in_flight: inFlightAtLock },
      `Service state: STOPPING - ${enableFailSafe ? 'Rejecting new requests (fail-safe mode). ' : ''}` +
        `${inFlightAtLock} in-flight requests remaining.`,
    );
    if (inFlightAtLock > 0) {
      log.info(
        `Waiting up to ${seconds(shutdownTimeoutMs)}s for ${inFlightAtLock} in-flight requests to complete...`,
      );
    }

    const progress = setInterval(() => void this.#tellProgress(deadlineMs), BEAT_MS);
    const cut = await this.#drain(workers, deadlineMs, shutdownTimeoutMs);
    clearInterval(progress);
    await this.#lastCall(workers);
    const leaving = Promise.all(workers.map((worker) => worker.exited));
    if (!(await within(Math.max(deadlineMs - performance.now(), 0) + LEAVE_MS, leaving))) {
      for (const worker of workers.filter(({ alive }) => alive)) {
        log.error(`Worker ${worker.pid} did not leave and is killed`);
        worker.kill();
      }
      await leaving;
    }

    this.#lifecycle.to('stopped');
    const kept = this.#audit === undefined || (await this.#closeAudit(this.#audit));
    const reports = workers.map(({ report }) => report).filter((report) => report !== undefined);
    const exitCode = exitCodeOf(why.exitCode, kept, cut.length > 0, reports);
    const sum = (pick: (report: ShutdownReport) => number): number =>
      reports.reduce((total, report) => total + pick(report), 0);
    const report: ShutdownReport = {
      unclean: false,
      pid: process.pid,
      version,
      reason: why.reason,
      started_at: orderedAt.toISOString(),
      stopped_at: new Date().toISOString(),
      duration_seconds: Math.round(performance.now() - orderedMs) / 1000,
      in_flight_at_lock: inFlightAtLock,
      completed: sum(({ completed }) => completed),
      aborted: sum(({ aborted }) => aborted),
      cut,
      rejected: sum(({ rejected }) => rejected),
      exit_code: exitCode,
    };
    try {
      this.#record?.close(report);
    } catch (error) {
      log.error(`The report of this stop could not be kept: ${messageOf(error)}`);
    }
    if (exitCode === ExitCode.Ok) log.info('Service state: STOPPED - All requests completed gracefully');
    log.info({ report }, 'Service shutdown complete');
    this.#closeOperatorDoor();
    return report;
  }

  /** Waits until nothing is in flight in any worker. One that is past the deadline is blocked, and killed. */
  async #drain(
    workers: readonly WorkerHandle[],
    deadlineMs: number,
    timeoutMs: number,
  ): Promise<readonly CutRequest[]> {
    const all = Promise.all(workers.map((worker) => worker.drained));
    const drained = await within(
      deadlineMs - performance.now(),
      Promise.race([all, this.#hurry.cutNow.promise]),
    );
    const cutBy = drained && (await isSettled(all)) ? undefined : await within(CUT_GRACE_MS, all);
    const blocked = workers.filter((worker) => worker.alive && !worker.hasDrained);
    const lost = blocked.flatMap((worker) => worker.inFlight.map(cutOf));
    for (const worker of blocked) worker.kill();
    await Promise.all(blocked.map((worker) => worker.exited));
    const ended = (await all).flat();
    const cut = [...ended, ...lost];
    if (cutBy !== undefined && (cut.length > 0 || blocked.length > 0)) {
      const early = drained;
      const count = Math.max(cut.length, blocked.length);
      this.#log.warn(
        { in_flight: count },
        early
          ? `Shutdown forced: ${count} requests still in-flight`
          : `Shutdown timeout: ${count} requests still in-flight after ${seconds(timeoutMs)}s`,
      );
    }
    for (const request of cut) this.#logCut(request);
    for (const request of lost) this.#audit?.record('cut', { ...request });
    for (const worker of blocked)
      this.#log.error(`Worker ${worker.pid} did not answer: its event loop was blocked. Killed`);
    if (cutBy !== undefined && (cut.length > 0 || blocked.length > 0)) {
      this.#log.error('Force shutdown: In-flight requests did not complete in time');
    }
    return cut;
  }

  /** As a single process does it: while the workers keep their answers back, what is queued is accepted. */
  async #lastCall(workers: readonly WorkerHandle[]): Promise<void> {
    for (const worker of workers) worker.tell({ type: 'hold' });
    for (let round = 0; this.#server.listening && round < HOLD_ROUNDS; round += 1) {
      const before = this.#accepted;
      await afterReading(HOLD_MS);
      if (this.#accepted === before) break;
    }
    stopAccepting(this.#server);
    await afterReading(0);
    this.#crew.dropWaiting();
    for (const worker of workers) worker.tell({ type: 'leave' });
  }

  async #closeAudit(audit: AuditLog): Promise<boolean> {
    let kept = false;
    const closed = audit.close().then((whole) => {
      kept = whole;
    });
    await within(LEAVE_MS, closed).catch(() => false);
    if (!kept) this.#log.error('The audit log could not be written to its end');
    return kept;
  }

  async #tellProgress(deadlineMs: number): Promise<void> {
    const status = await this.#crew.sum();
    const left = Math.max(0, Math.ceil((deadlineMs - performance.now()) / 1000));
    this.#notifier.status(
      drainLine({ inFlight: status.inFlight, oldest: status.oldest, state: 'stopping', left }),
    );
    this.#notifier.extend(deadlineMs - performance.now() + LEAVE_MS);
  }

  #serving(): string {
    return `Serving: generation ${this.#crew.generation}, ${this.#crew.size} workers`;
  }

  #recordCut(worker: WorkerHandle, requests: readonly CutRequest[]): void {
    this.#audit?.record('worker_end', { pid: worker.pid, end: worker.end });
    for (const request of requests) {
      this.#logCut(request);
      this.#audit?.record('cut', { ...cutOf(request) });
    }
  }

  #logCut({ id, method, path, age_ms }: CutRequest): void {
    this.#log.warn(
      { request: id, method, path, age_ms },
      `Cut in-flight request: ${method} ${path} after ${seconds(age_ms)}s`,
    );
  }

  #attempted(attempt: Attempt, address: string): void {
    const line = `Administrator's route used from ${address}: ${attempt}`;
    if (attempt === 'accepted') this.#log.info(line);
    else this.#log.warn(line);
    this.#audit?.record('admin', { action: 'emergency-shutdown', client: address, result: attempt });
  }

  #closeOperatorDoor(): void {
    this.#operatorDoor?.close();
    this.#operatorDoor?.closeAllConnections();
  }
}

async function countInFlight(workers: readonly WorkerHandle[]): Promise<number> {
  const counts = await Promise.all(
    workers.map(async (worker) => {
      let count: number | undefined;
      await within(
        COUNT_MS,
        worker.locked.then((inFlight) => {
          count = inFlight;
        }),
      );
      return count ?? worker.inFlightCount;
    }),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

function cutOf({ id, method, path, age_ms }: CutRequest): CutRequest {
  return { id, method, path, age_ms };
}

/** Whether a promise is settled already, without waiting for it. */
function isSettled(promise: Promise<unknown>): Promise<boolean> {
  return Promise.race([
    promise.then(() => true),
    new Promise<false>((resolve) => {
      setImmediate(resolve, false);
    }),
  ]);
}

/** The gravest of what went wrong: lost records, then what the stop was ordered for, then what was cut. */
function exitCodeOf(
  ordered: ExitCode,
  kept: boolean,
  cut: boolean,
  reports: readonly ShutdownReport[],
): ExitCode {
  const codes = reports.map(({ exit_code }) => exit_code);
  if (!kept || codes.includes(ExitCode.AuditLost)) return ExitCode.AuditLost;
  if (ordered !== ExitCode.Ok) return ordered;
  if (cut || codes.includes(ExitCode.Forced)) return ExitCode.Forced;
  return codes.includes(ExitCode.Internal) ? ExitCode.Internal : ExitCode.Ok;
}
