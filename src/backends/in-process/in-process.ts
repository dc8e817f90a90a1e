import type { Server } from 'node:http';
import { type App, type AppSource, loadApp, type StopContext } from '../../app/app.ts';
import type { AuditLog } from '../../audit/audit-log.ts';
import { assertReloadable, type Config, ConfigError } from '../../config/settings.ts';
import type {
  Backend,
  BackendStatus,
  Closed,
  CloseLimits,
  Cut,
  Host,
  Settings,
} from '../../control/backend.ts';
import { LEAST_STOP_MS } from '../../control/stop.ts';
import { messageOf } from '../../error.ts';
import { ExitCode, graverOf, StartError } from '../../exit-code.ts';
import type { CutRequest } from '../../lifecycle/last-shutdown.ts';
import { addServiceRoutes } from '../../ops/routes.ts';
import { OLDEST, type OpenHold, type OpenWork } from '../../ops/status.ts';
import { aborted, seconds, within } from '../../platform/deadline.ts';
import type { SignalTrap } from '../../platform/signals.ts';
import { Connections } from '../../server/connections.ts';
import type { Exchange, ServerContext } from '../../server/exchange.ts';
import { Gate } from '../../server/gate.ts';
import { type Hold, InFlight } from '../../server/in-flight.ts';
import { RequestAudit } from '../../server/request-audit.ts';
import { Router } from '../../server/router.ts';
import {
  type Application,
  applyLimits,
  createHttpServer,
  type GatedServer,
  routed,
  type ServerParts,
} from '../../server/server.ts';
import type { TallySnapshot } from '../../server/tally.ts';
import { WaitTrace } from '../../server/wait-trace.ts';
import { AdoptedServers } from './adopted-servers.ts';
import { type Listener, OwnListener } from './listener.ts';
import { LoopDelay } from './loop-delay.ts';
import { hangUp, quietTail } from './quiet-tail.ts';
import { watchStalledBodies } from './stalled-bodies.ts';
import { stopStreams } from './stop-streams.ts';

/** How long an application's start() may take to settle after the service was told to stop. */
const ABANDON_MS = 1_000;
/** The longest that an application's locked(), and its drained(), are waited for. */
const HOOK_MS = 5_000;

/** What answers in place of routes of ours. */
export interface Behind {
  readonly application: (gate: Gate) => Application;
  /** Whether it is there. */
  readonly isServed: () => boolean;
  readonly tallies: () => TallySnapshot[];
}

export interface InProcessOptions {
  readonly app: AppSource;
  readonly config: Config;
  /** Default: the application's routes and the service's own. */
  readonly behind?: Behind;
  /** Default: a listening socket of its own. */
  readonly listener?: Listener | undefined;
  /** Remembers what is in flight for the case that this process can no longer tell. */
  readonly recorder?: ServerContext['recorder'];
  /** Has the application's own signal handlers; where the service takes no signals, nobody holds them back. */
  readonly signals?: SignalTrap | undefined;
  readonly isRehearsal?: boolean;
}

/** The application and its HTTP server, in this process. */
export class InProcess implements Backend {
  readonly #host: Host;
  readonly #source: AppSource;
  readonly #parts: ServerParts;
  readonly #http: GatedServer;
  readonly #listener: Listener;
  readonly #inFlight = new InFlight();
  readonly #connections = new Connections();
  readonly #router = new Router();
  readonly #gate: Gate;
  readonly #requestAudit = new RequestAudit();
  readonly #loopDelay = new LoopDelay();
  readonly #signals: SignalTrap | undefined;
  readonly #behind: Behind | undefined;
  #config: Config;
  #generation = 1;
  #starting: Promise<void> | undefined;
  /** Set once its start() is done: only what has started can be stopped. */
  #app: App | undefined;
  /** Its locked(), once it is called, and how that has ended. */
  #locked: Promise<ExitCode> | undefined;
  #atLock = {
    ...{ atMs: 0, completed: 0, aborted: 0, closed: 0, refused: 0 },
    /** The application, if it had started: it alone is told of the lock, and of the end of the drain. */
    app: undefined as App | undefined,
  };
  #endTelling: () => void = () => undefined;
  #endStallWatch: () => void = () => undefined;
  /** Set where the servers are the application's own; they take the place of ours and of its routes. */
  readonly #adopted: AdoptedServers | undefined;

  constructor(
    host: Host,
    { app, config, behind, listener, recorder, signals, isRehearsal }: InProcessOptions,
  ) {
    this.#host = host;
    this.#source = app;
    this.#config = config;
    this.#signals = signals;
    this.#behind = behind;
    this.#listener = listener ?? new OwnListener(config.host, config.port);
    this.#adopted = listener instanceof AdoptedServers ? listener : undefined;
    const { lifecycle, log, proxies } = host;
    const context = { lifecycle, log, proxies, inFlight: this.#inFlight };
    this.#gate = new Gate(
      {
        ...{ ...context, connections: this.#connections, requestAudit: this.#requestAudit },
        isServed: behind?.isServed,
      },
      config,
    );
    this.#parts = {
      ...context,
      gate: this.#gate,
      connections: this.#connections,
      accepting: () => this.#listener.accepting,
      logsAccess: () => this.#config.accessLog === 'on',
      recorder,
      isRehearsal,
      requestAudit: this.#requestAudit,
      waits: config.drainTrace && isRehearsal !== true ? new WaitTrace() : undefined,
    };
    const application = behind?.application(this.#gate) ?? routed(this.#router);
    this.#http = createHttpServer(this.#parts, application, config);
    if (behind !== undefined) this.#http.takeUpgrades();
    addServiceRoutes(
      this.#router,
      () => ({ ready: host.lifecycle.ready, state: host.lifecycle.state, inFlight: this.#inFlight.count }),
      host.admin,
    );
  }

  get server(): Server {
    return this.#adopted?.first ?? this.#http.server;
  }

  /** As `AdoptedServers.adopt`, which has to be the listener. */
  adopt(server: Server, stop: () => void): void {
    if (this.#adopted === undefined) throw new Error('adopt: this backend has a server of its own');
    this.#adopted.adopt(server, this.#parts, stop);
  }

  get where(): string {
    return this.#listener.where;
  }

  get ready(): boolean {
    return true;
  }

  /** The question is answered by the event loop it asks about. */
  get responsive(): boolean {
    return true;
  }

  get generation(): number {
    return this.#generation;
  }

  /** Requests admitted whose response is not closed. */
  get inFlight(): number {
    return this.#inFlight.count;
  }

  async start(audit: AuditLog | undefined): Promise<void> {
    if (audit !== undefined) this.#requestAudit.use(audit);
    this.#loopDelay.begin();
    const { startTimeoutMs } = this.#config;
    this.#starting = this.#startApp();
    // A start that fails after it was abandoned is not a crash.
    this.#starting.catch(() => undefined);
    // After a stop was ordered, only `close` still waits for the application to settle.
    const settled = Promise.race([this.#starting, aborted(this.#host.lifecycle.stopping)]);
    // An instance of a program has the same limit, and says more when it is over.
    if (this.#behind !== undefined) return settled;
    if (await within(startTimeoutMs, settled)) return;
    const told = `APP: the application had not started after ${seconds(startTimeoutMs)}s (START_TIMEOUT)`;
    throw new StartError(told, ExitCode.Internal);
  }

  async #startApp(): Promise<void> {
    const { log, lifecycle } = this.#host;
    const name = typeof this.#source === 'string' ? this.#source : 'the application';
    const app = typeof this.#source === 'string' ? await loadApp(this.#source) : this.#source;
    let part = 'start()';
    try {
      const { stopping } = lifecycle;
      await app.start?.({ log, config: this.#config, stopping, inFlight: this.#inFlight });
      if (lifecycle.state === 'stopped') {
        // The start was abandoned, and this is the last chance to release what it has opened.
        await app.stop?.(this.#stopContext(ABANDON_MS));
        return;
      }
      this.#app = app;
      part = 'routes()';
      app.routes?.(this.#router);
      if (this.#router.takesUpgrades) this.#http.takeUpgrades();
    } catch (error) {
      if (error instanceof StartError || error instanceof ConfigError) throw error;
      throw new StartError(`APP: ${part} of ${name} failed: ${messageOf(error)}`, ExitCode.Internal, {
        cause: error,
      });
    }
    if (this.#adopted !== undefined || this.#behind !== undefined) return;
    const none = Object.keys(app).length === 0;
    log.info(none ? "No application: the service's own routes alone" : `Application started: ${name}`);
  }

  open(): Promise<void> {
    return this.#listener.open(this.#http.server);
  }

  status(): BackendStatus {
    const { starting, stopping, overloaded } = this.#gate.refused;
    return {
      generation: this.#generation,
      in_flight: this.#openWork(),
      connections: { open: this.#connections.size, idle: this.#connections.idle },
      rejected: { total: starting + stopping + overloaded, starting, stopping, overloaded },
      tallies: (this.#behind ?? this.#adopted?.labels ?? this.#router).tallies(),
      cut: this.#connections.outcomes.cut,
      event_loop: this.#loopDelay.read(),
      workers: null,
      program: null,
      replaced: null,
    };
  }

  #openWork(): OpenWork {
    const oldest = [...this.#connections.exchanges()]
      .sort((a, b) => a.startedMs - b.startedMs)
      .slice(0, OLDEST)
      .map(({ id, method, path, ageMs, phase }) => ({ id, method, path, age_ms: Math.round(ageMs), phase }));
    const holds = this.#inFlight.holds.slice(0, OLDEST).map(describeHold);
    return { count: this.#inFlight.count, oldest, holds };
  }

  async reload({ config }: Settings): Promise<'settings' | 'code and settings'> {
    assertReloadable(this.#config, config, 'process');
    this.configure(config);
    return 'settings';
  }

  /** Puts settings in place that were found good. */
  protected configure(config: Config): void {
    this.#config = config;
    this.#gate.configure(config);
    applyLimits(this.#http.server, config);
    this.#generation += 1;
  }

  /** The one audit log of this process is its controller's. */
  reopen(): void {}

  /** The state that follows is the lifecycle's, which the gate and the handlers read. */
  stopOrdered(): void {}

  /** May be called again: a worker that has locked itself is still called by its controller. */
  async lock(): Promise<OpenWork> {
    this.#endStallWatch();
    this.#endStallWatch = watchStalledBodies(this.#connections, (exchange) =>
      this.#host.cut([this.#cutExchange(exchange, 'its body has stalled')]),
    );
    for (const connection of this.#connections) connection.announceClose();
    if (!this.#config.enableFailSafe) this.#listener.close();
    const { completed, aborted, closed } = this.#connections.outcomes;
    const work = this.#openWork();
    if (this.#atLock.atMs === 0) {
      const refused = this.#gate.refused.stopping;
      this.#atLock = { atMs: performance.now(), completed, aborted, closed, refused, app: this.#app };
      this.#locked = this.#tellLocked();
      this.#endTelling = stopStreams([...this.#connections.exchanges()], this.#config.drainSpreadMs);
    }
    return work;
  }

  async drained(): Promise<void> {
    // Until it is done the application may still begin work.
    await this.#locked;
    await this.#inFlight.drained();
  }

  #tellLocked(): Promise<ExitCode> | undefined {
    const { app } = this.#atLock;
    if (app?.locked === undefined) return undefined;
    const ms = Math.min(HOOK_MS, (this.#host.lifecycle.order?.deadlineMs ?? 0) - performance.now());
    // In a later turn of the loop: what has come in this one is refused before application code runs.
    const told = new Promise(setImmediate).then(() => app.locked?.(this.#stopContext(ms)));
    return this.#end('locked()', ms, told);
  }

  #stopContext(ms: number): StopContext {
    const { lifecycle, log } = this.#host;
    return { log, reason: lifecycle.order?.reason ?? 'a failed start', deadline: Math.max(0, ms) };
  }

  async cut(reason: string): Promise<Cut> {
    const count = this.#inFlight.count;
    this.#endTelling();
    // Before a handler learns of its cut, and leaves.
    const holds = this.#inFlight.holds.map((hold) => ({ ...describeHold(hold), reason }));
    this.#inFlight.close();
    const exchanges = [...this.#connections.exchanges()];
    const requests = exchanges.map((exchange) => this.#cutExchange(exchange, reason));
    return { requests, holds, unnamed: Math.max(0, count - requests.length - holds.length) };
  }

  #cutExchange(exchange: Exchange, reason: string): CutRequest {
    const request = describe(exchange, reason, this.#parts.waits);
    exchange.cut();
    return request;
  }

  async drainAcceptQueue(): Promise<number> {
    await this.closeQueue();
    return this.release();
  }

  /** Keeps refusals back, accepts what is queued, and then no more. */
  async closeQueue(): Promise<void> {
    if (!this.#listener.accepting) return;
    this.#gate.hold();
    await this.#listener.closeQueue(() => this.#connections.arrivals);
  }

  /** Answers what was held, and what still comes. @returns how many requests are in flight after that */
  async release(): Promise<number> {
    this.#listener.close();
    this.#gate.release();
    await quietTail(this.#connections, this.#atLock.atMs);
    return this.#inFlight.closeIfIdle();
  }

  /**
   * Empties the connections without refusing anything: no more come, each answer from here on says `Connection: close`,
   * and an idle one is left to its client or to the keep-alive time-out. Resolves when none is left.
   */
  async retire(): Promise<void> {
    this.#listener.close();
    for (const connection of this.#connections) connection.announceClose();
    await this.#connections.emptied();
  }

  async close({ drained, stopMs }: CloseLimits): Promise<Closed> {
    this.#inFlight.close();
    this.#endStallWatch();
    this.#endTelling();
    const cut: CutRequest[] = [];
    const hangUpAll = (): Promise<void> =>
      hangUp(this.#gate, this.#connections, (exchange) =>
        cut.push(this.#cutExchange(exchange, 'the time is over')),
      );
    // Behind the gate of the fail-safe stop connections may stay while the application stops: what comes is refused.
    if (!this.#config.enableFailSafe) await hangUpAll();
    this.#adopted?.drained();
    const exitCode = await this.#stopApp(stopMs, drained);
    await hangUpAll();
    this.#gate.flushSummary();
    this.#loopDelay.end();
    this.#parts.waits?.end();
    return {
      completed: this.#connections.outcomes.completed - this.#atLock.completed,
      aborted: this.#connections.outcomes.aborted - this.#atLock.aborted,
      closed: this.#connections.outcomes.closed - this.#atLock.closed,
      refused: this.#gate.refused.stopping - this.#atLock.refused,
      cut,
      exitCode,
    };
  }

  /** Its drained(), its own signal handlers, then its stop(): they may need what that closes. */
  async #stopApp(ms: number, drained: boolean): Promise<ExitCode> {
    const { lifecycle, log } = this.#host;
    const byMs = performance.now() + ms;
    const leftMs = (): number => Math.max(byMs - performance.now(), LEAST_STOP_MS);
    const lockedCode = (await this.#locked) ?? ExitCode.Ok;
    const drainedCode = drained ? await this.#tellDrained(ms) : ExitCode.Ok;
    const handlers = this.#signals?.runHandlers(lifecycle.order?.reason) ?? [];
    const names = handlers.map(({ name }) => name).join(', ');
    if (names !== '') log.info(`The application's own handlers were held back and have run: ${names}`);
    const handlersMs = Math.max(leftMs() - LEAST_STOP_MS, LEAST_STOP_MS);
    const codes = await Promise.all(handlers.map(({ name, done }) => this.#end(name, handlersMs, done)));
    const stopMs = leftMs();
    const stopped = await this.#end('stop()', stopMs, this.#settleAndStop(stopMs));
    return [lockedCode, drainedCode, ...codes, stopped].reduce(graverOf);
  }

  async #tellDrained(ms: number): Promise<ExitCode> {
    const { app } = this.#atLock;
    if (app?.drained === undefined) return ExitCode.Ok;
    const hookMs = Math.min(ms, HOOK_MS);
    return this.#end('drained()', hookMs, (async () => app.drained?.(this.#stopContext(hookMs)))());
  }

  /** Waits for a part of the application's own end. */
  async #end(name: string, ms: number, done: Promise<unknown>): Promise<ExitCode> {
    const { log } = this.#host;
    try {
      if (await within(ms, done)) return ExitCode.Ok;
      log.error(`The application's ${name} was not done after ${seconds(ms)}s`);
      return ExitCode.Forced;
    } catch (error) {
      log.error({ err: error }, `The application's ${name} failed`);
      return ExitCode.Internal;
    }
  }

  /** A start that was overtaken gets a moment to settle: only what has started can be stopped. */
  async #settleAndStop(ms: number): Promise<void> {
    if (this.#app === undefined && this.#starting !== undefined) {
      await within(ABANDON_MS, this.#starting).catch((error) =>
        this.#host.log.warn({ err: error }, `The start was abandoned: ${messageOf(error)}`),
      );
      // It may have come as far as listening meanwhile.
      this.#listener.close();
    }
    await this.#app?.stop?.(this.#stopContext(ms));
  }

  async kill(): Promise<void> {
    this.#listener.close();
    this.#loopDelay.end();
    this.#parts.waits?.end();
    try {
      await within(ABANDON_MS, Promise.resolve(this.#app?.stop?.(this.#stopContext(ABANDON_MS))));
    } catch (error) {
      this.#host.log.error({ err: error }, `The application's stop() failed: ${messageOf(error)}`);
    }
  }

  lose(): readonly CutRequest[] {
    const exchanges = [...this.#connections.exchanges()];
    for (const exchange of exchanges) this.#requestAudit.ended(exchange, 'cut');
    return exchanges.map((exchange) => describe(exchange, 'the process ends', this.#parts.waits));
  }
}

/** An exchange that is cut. @param reason in words that follow "because" */
export function describe(exchange: Exchange, reason: string, waits?: WaitTrace): CutRequest {
  const { id, method, path, ageMs, phase, hold, pattern: route } = exchange;
  const waits_at = waits?.of(exchange);
  return {
    ...{ id, method, path, age_ms: Math.round(ageMs), phase, reason },
    ...(route === undefined ? {} : { route }),
    ...(hold === undefined ? {} : { hold }),
    ...(waits_at === undefined ? {} : { waits_at }),
  };
}

function describeHold({ name, startedMs, request }: Hold): OpenHold {
  return { name, age_ms: Math.round(performance.now() - startedMs), request: request ?? null };
}
