import { createServer, type Server } from 'node:net';
import type { AuditLog } from '../../audit/audit-log.ts';
import { assertReloadable, type Config } from '../../config/settings.ts';
import type {
  Backend,
  BackendStatus,
  Closed,
  CloseLimits,
  Cut,
  Host,
  Settings,
} from '../../control/backend.ts';
import type { CutRequest } from '../../lifecycle/last-shutdown.ts';
import type { StopOrder } from '../../lifecycle/lifecycle.ts';
import type { OpenWork } from '../../ops/status.ts';
import { mostConnections } from '../../platform/descriptors.ts';
import {
  handedSocket,
  heldError,
  holdSocket,
  listen,
  listenOnHanded,
  SERVICE_ADDRESS,
  systemError,
  urlOf,
} from '../../platform/listen.ts';
import { closeAcceptQueue } from '../accept-queue.ts';
import { ACCEPT_OPTIONS } from './handed-listener.ts';
import { BEAT_MS } from './messages.ts';
import { makePlan } from './plan.ts';
import { latestLoop, sumClosed, sumRejected, sumTallies, sumWork } from './totals.ts';
import { UNCLOSED, type WorkerHandle } from './worker-handle.ts';
import { WorkerPool } from './worker-pool.ts';

/**
 * Worker processes, each with the application and its HTTP server. They accept by themselves, from a socket held here:
 * while one is replaced, clients wait in that socket. Where Node cannot hold one, this process accepts for them.
 */
export class Workers implements Backend {
  readonly #pool: WorkerPool;
  /** What comes is paused: no byte of it is read here. */
  readonly #server: Server;
  #settings: Settings;
  #accepted = 0;
  /** Where the workers accept. */
  #where: string | undefined;
  #watch: NodeJS.Timeout | undefined;
  /** Those that a stop ends. */
  #stopping: readonly WorkerHandle[] = [];

  constructor(host: Host, settings: Settings) {
    this.#settings = settings;
    this.#pool = new WorkerPool(host);
    this.#server = createServer(ACCEPT_OPTIONS, (socket) => {
      this.#accepted += 1;
      this.#pool.hand(socket);
    });
    // While workers stand still, what is accepted stays here: it must not take the descriptors of everything else.
    this.#server.maxConnections = mostConnections();
  }

  get #config(): Config {
    return this.#settings.config;
  }

  get where(): string {
    return this.#where ?? urlOf(this.#server);
  }

  get ready(): boolean {
    return this.#pool.ready;
  }

  get responsive(): boolean {
    return this.#pool.isFresh(this.#config.heartbeatTimeoutMs + 2 * BEAT_MS);
  }

  get generation(): number {
    return this.#pool.generation;
  }

  async start(audit: AuditLog | undefined): Promise<void> {
    this.#pool.use(audit);
    const plan = makePlan(1, this.#settings);
    await this.#pool.activate(await this.#pool.startGeneration(plan), plan);
  }

  async open(): Promise<void> {
    const { host, port, startTimeoutMs } = this.#config;
    const socket = await holdSocket(host, port);
    if (socket === undefined) await this.#accept();
    else {
      const result = await this.#pool.listen(socket, startTimeoutMs);
      if ('code' in result) throw heldError(systemError(result.code), host, port);
      this.#where = result.where;
    }
    this.#watch = setInterval(() => {
      // Behind the next look at the channels: when this process itself has stood still, the beats wait there.
      setImmediate(() => this.#pool.endBlocked(this.#config.heartbeatTimeoutMs));
    }, BEAT_MS);
  }

  async #accept(): Promise<void> {
    const fd = handedSocket();
    if (fd === undefined) await listen(this.#server, this.#config.host, this.#config.port, SERVICE_ADDRESS);
    else await listenOnHanded(this.#server, fd);
  }

  async status(): Promise<BackendStatus> {
    const all = await this.#pool.refreshed();
    const statuses = all.flatMap(({ status }) => (status === undefined ? [] : [status]));
    const { departed, replaced } = this.#pool;
    const sum = (pick: (status: BackendStatus) => number): number =>
      statuses.reduce((total, status) => total + pick(status), 0);
    const inFlight = all.map((worker) => worker.inFlight);
    return {
      generation: this.generation,
      in_flight: sumWork(inFlight),
      connections: {
        open: sum(({ connections }) => connections.open),
        idle: sum(({ connections }) => connections.idle),
      },
      rejected: sumRejected([departed.rejected, ...statuses.map(({ rejected }) => rejected)]),
      tallies: sumTallies([...departed.tallies, ...statuses.flatMap(({ tallies }) => tallies)]),
      cut: departed.cut + sum(({ cut }) => cut),
      event_loop: latestLoop(statuses),
      workers: all.map((worker, index) => ({
        pid: worker.pid,
        generation: worker.generation,
        state: worker.state === 'starting' || worker.state === 'serving' ? worker.state : 'retiring',
        in_flight: inFlight[index]?.count ?? 0,
        connections: worker.status?.connections.open ?? 0,
        heard_ms_ago: Math.round(performance.now() - worker.heardMs),
      })),
      program: null,
      replaced,
    };
  }

  /** New workers with the code and the settings on disk; the old ones retire when all new ones are ready. */
  async reload(settings: Settings): Promise<'code and settings'> {
    assertReloadable(this.#config, settings.config, 'workers');
    const plan = makePlan(this.generation + 1, settings);
    const workers = await this.#pool.startGeneration(plan);
    this.#settings = settings;
    await this.#pool.activate(workers, plan);
    return 'code and settings';
  }

  reopen(): void {
    this.#pool.reopen();
  }

  stopOrdered(order: StopOrder): void {
    clearInterval(this.#watch);
    this.#pool.stopOrdered(order);
    this.#stopping = this.#pool.all;
  }

  async lock(order: StopOrder): Promise<OpenWork> {
    if (!this.#config.enableFailSafe) this.#close();
    return sumWork(await Promise.all(this.#stopping.map((worker) => worker.lock(order))));
  }

  async drained(): Promise<void> {
    await Promise.all(this.#stopping.map((worker) => worker.drained()));
  }

  async cut(reason: string): Promise<Cut> {
    const cuts = await this.#pool.cutAll(reason);
    return {
      requests: cuts.flatMap(({ requests }) => requests),
      holds: cuts.flatMap(({ holds }) => holds),
      unnamed: cuts.reduce((sum, { unnamed }) => sum + unnamed, 0),
    };
  }

  /**
   * Nobody answers before all have stopped accepting: a client whose answer has come opens its next connection at once,
   * and would be reset by whoever closes the listening socket last.
   */
  async drainAcceptQueue(): Promise<number> {
    // Nothing is read from this end of it, so it must not be the last one.
    this.#pool.takeSocket()?.close();
    await Promise.all(this.#stopping.map((worker) => worker.closeQueue()));
    await closeAcceptQueue(this.#server, () => this.#accepted);
    this.#pool.dropWaiting();
    const counts = await Promise.all(this.#stopping.map((worker) => worker.release()));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async close(limits: CloseLimits): Promise<Closed> {
    await Promise.all(this.#stopping.map((worker) => this.#pool.close(worker, limits)));
    // One that was still starting has nothing to tell.
    const served = this.#stopping.filter(({ readyMs }) => readyMs !== undefined);
    return sumClosed(served.map(({ closed }) => closed ?? UNCLOSED));
  }

  async kill(): Promise<void> {
    clearInterval(this.#watch);
    this.#close();
    await this.#pool.killAll();
  }

  /** Takes no more connections here. */
  #close(): void {
    if (this.#server.listening) this.#server.close();
    this.#pool.takeSocket()?.close();
  }

  /** No application runs in this process: if it ends early, nothing of it is in flight. */
  lose(): readonly CutRequest[] {
    return [];
  }
}
