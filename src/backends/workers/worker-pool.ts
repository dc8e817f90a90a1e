import { setMaxListeners } from 'node:events';
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import type { Config } from '../../config/settings.ts';
import { ExitCode } from '../../exit-code.ts';
import type { CutRequest } from '../../lifecycle/last-shutdown.ts';
import type { OpenRequest, WorkerStatus } from '../../ops/status.ts';
import { within } from '../../platform/deadline.ts';
import { Balancer } from './balancer.ts';
import { BEAT_MS, type Drained, type ToWorker } from './messages.ts';
import { backOff, type Plan, type Spawner, startGeneration, tryToStart } from './start-generation.ts';
import { addDeparted, type Departed, NOBODY } from './totals.ts';
import { WorkerHandle } from './worker-handle.ts';

/** A worker that has served so long has not died at once. */
const SETTLED_MS = 10_000;
/** The longest that idle connections may keep a retired worker. */
const LONGEST_LINGER_MS = 90_000;
/** What a retired worker gets beyond its connections' time and its requests': its application's stop(), its audit log. */
const RETIRE_GRACE_MS = 5_000;
/** How long workers may take to answer when somebody asks for figures. */
const ANSWER_MS = 500;
/** How long the system may take to end processes that were killed. */
const REAP_MS = 2_000;

/** What the supervisor has to know of its workers. */
export interface PoolEvents {
  /** Requests that a worker has cut which does not leave with the whole service. */
  cut(requests: readonly CutRequest[]): void;
  /** A worker that had become ready has ended without a report. What it had in flight is lost. */
  died(worker: WorkerHandle): void;
  /** A worker has come, is ready, or has gone. */
  changed(): void;
  emergency(reason: string, by: string): void;
  auditLost(): void;
}

/** The workers: those that serve, those that are being started, and those that retire. */
export class WorkerPool {
  readonly #log: Logger;
  readonly #events: PoolEvents;
  /** Everybody alive. */
  readonly #all = new Set<WorkerHandle>();
  /** Those that connections are handed to. */
  #serving: WorkerHandle[] = [];
  readonly #balancer: Balancer;
  readonly #spawner: Spawner;
  readonly #stop = new AbortController();
  /** What those who serve were made from. */
  #plan: Plan | undefined;
  #failures = 0;
  departed: Departed = NOBODY;
  /** Workers that were replaced because they ended, and those of them that were killed for standing still. */
  readonly replaced = { ended: 0, blocked: 0 };

  constructor(log: Logger, events: PoolEvents) {
    this.#log = log;
    this.#events = events;
    // As many as there are workers wait at once to try again.
    setMaxListeners(0, this.#stop.signal);
    const pool = this;
    this.#balancer = new Balancer({
      all: this.#all,
      get serving() {
        return pool.#serving;
      },
      get stopping() {
        return pool.#stopping;
      },
    });
    this.#spawner = {
      log,
      stop: this.#stop.signal,
      get stopping() {
        return pool.#stopping;
      },
      spawn: (plan) => this.#spawn(plan),
      end: (worker) => this.#end(worker),
    };
  }

  get #stopping(): boolean {
    return this.#stop.signal.aborted;
  }

  /** How many there should be. */
  get size(): number {
    return this.#plan?.config.workers ?? 0;
  }

  /** The generation that serves. */
  get generation(): number {
    return this.#plan?.generation ?? 0;
  }

  get ready(): boolean {
    return this.#serving.some(({ isReady }) => isReady);
  }

  /** Starts a generation. @throws StartError when one of it does not become ready; then none of it is left */
  startGeneration(plan: Plan): Promise<WorkerHandle[]> {
    return startGeneration(this.#spawner, plan);
  }

  #spawn({ generation, variables }: Plan): WorkerHandle {
    const worker = new WorkerHandle(generation, variables, {
      emergency: this.#events.emergency,
      locked: (leaving, exitCode) => this.#locked(leaving, exitCode),
      drained: (leaving, drained) => this.#drained(leaving, drained),
      returned: (sockets) => {
        for (const socket of sockets) this.hand(socket);
      },
      ended: (gone) => this.#ended(gone),
    });
    this.#all.add(worker);
    this.#events.changed();
    void worker.ready.then(() => this.#events.changed());
    return worker;
  }

  /** From now on these serve; those that did so far retire. */
  activate(workers: WorkerHandle[], plan: Plan): void {
    const old = this.#serving;
    this.#plan = plan;
    this.#failures = 0;
    // Replaced in one step: a connection goes to an old worker before its word to retire, or to a new one.
    this.#serving = workers;
    for (const worker of old) this.#retire(worker, plan.config);
    this.#balancer.giveWaiting();
    // One may have died while the others became ready.
    for (const worker of workers) if (!worker.alive) this.#replaceFailed(worker);
  }

  #retire(worker: WorkerHandle, { keepAliveTimeoutMs, shutdownTimeoutMs }: Config): void {
    worker.dismissed = true;
    const idleMs = keepAliveTimeoutMs === 0 ? LONGEST_LINGER_MS : keepAliveTimeoutMs + 2 * BEAT_MS;
    const lingerMs = Math.min(idleMs, LONGEST_LINGER_MS);
    worker.tell({ type: 'retire', lingerMs });
    const mostMs = lingerMs + shutdownTimeoutMs + RETIRE_GRACE_MS;
    void within(mostMs, worker.ended).then((left) => {
      if (left || this.#stopping) return;
      this.#log.error(`Worker ${worker.pid} did not retire in ${mostMs / 1000}s and is killed`);
      this.#end(worker);
    });
  }

  hand(socket: Socket): void {
    this.#balancer.give(socket);
  }

  /** There is nobody left who could take them. */
  dropWaiting(): void {
    this.#balancer.dropWaiting();
  }

  tellAll(message: ToWorker): void {
    for (const worker of this.#all) worker.tell(message);
  }

  /** From now on nobody is replaced. Who is not ready has nothing in flight and ends. Returns who is left. */
  dismissAll(): WorkerHandle[] {
    this.#stop.abort();
    for (const worker of this.#all) if (worker.readyMs === undefined) this.#end(worker);
    return [...this.#all].filter(({ readyMs }) => readyMs !== undefined);
  }

  async killAll(): Promise<void> {
    this.#stop.abort();
    const all = [...this.#all];
    for (const worker of all) this.#end(worker);
    await within(REAP_MS, Promise.all(all.map(({ ended }) => ended)));
  }

  #end(worker: WorkerHandle): void {
    worker.dismissed = true;
    worker.kill();
  }

  /** Kills workers that have not shown for so long that their event loop turns. They are replaced like any that end. */
  endBlocked(timeoutMs: number): void {
    // Less than two beats says nothing.
    const mostMs = Math.max(timeoutMs, 2 * BEAT_MS);
    for (const worker of this.#all) {
      if (worker.readyMs === undefined || !worker.alive) continue;
      const silentMs = performance.now() - worker.heardMs;
      if (silentMs <= mostMs) continue;
      this.#log.error(
        `Worker ${worker.pid} has not been heard of for ${Math.round(silentMs / 1000)}s: its event loop is blocked. Killed`,
      );
      this.replaced.blocked += 1;
      worker.kill();
    }
  }

  /** Whether everybody who serves was heard of lately. */
  isFresh(withinMs: number): boolean {
    return this.#serving.every(({ isReady, heardMs }) => !isReady || performance.now() - heardMs <= withinMs);
  }

  #locked(worker: WorkerHandle, exitCode: ExitCode): void {
    if (this.#stopping) return;
    if (exitCode === ExitCode.AuditLost) this.#events.auditLost();
    if (exitCode !== ExitCode.Internal || worker.dismissed) return;
    // Its application has crashed. It finishes what it has, and is replaced before it is gone. What was handed to it
    // so far comes before this word; there will be no more.
    worker.dismissed = true;
    worker.tell({ type: 'leave' });
    this.#log.error(`Worker ${worker.pid} stops by itself and is replaced`);
    this.#replaceFailed(worker);
  }

  #drained(_worker: WorkerHandle, { cut }: Drained): void {
    // A stop waits for all drains and tells of them together.
    if (!this.#stopping && cut.length > 0) this.#events.cut(cut);
  }

  #ended(worker: WorkerHandle): void {
    this.#all.delete(worker);
    if (worker.snapshot !== undefined)
      this.departed = addDeparted(this.departed, worker.snapshot, worker.lost);
    if (worker.report === undefined && worker.readyMs !== undefined) this.#events.died(worker);
    this.#events.changed();
    if (this.#stopping) return;
    if (worker.report?.exit_code === ExitCode.AuditLost) this.#events.auditLost();
    if (worker.dismissed || !this.#serving.includes(worker)) return;
    this.#log.error(`Worker ${worker.pid} has ended ${worker.end} and is replaced`);
    this.#replaceFailed(worker);
  }

  #replaceFailed(worker: WorkerHandle): void {
    const slot = this.#serving.indexOf(worker);
    const plan = this.#plan;
    if (slot === -1 || plan === undefined || this.#stopping) return;
    worker.dismissed = true;
    this.replaced.ended += 1;
    const served = performance.now() - (worker.readyMs ?? performance.now());
    this.#failures = served >= SETTLED_MS ? 0 : this.#failures + 1;
    void this.#replace(slot, plan);
  }

  /** Tries until there is one again: an application that cannot start now may be able to later. */
  async #replace(slot: number, plan: Plan): Promise<void> {
    for (;;) {
      await backOff(this.#failures - 1, this.#stop.signal);
      // A reload may have replaced everybody meanwhile.
      if (this.#stopping || this.#plan !== plan) return;
      const { worker, failure } = await tryToStart(this.#spawner, plan);
      if (this.#stopping) return;
      if (this.#plan !== plan) {
        if (worker !== undefined) this.#end(worker);
        return;
      }
      if (worker !== undefined) {
        this.#serving[slot] = worker;
        this.#log.info(`Worker ${worker.pid} serves in place of the one that has ended`);
        this.#balancer.giveWaiting();
        if (!worker.alive) this.#replaceFailed(worker);
        return;
      }
      this.#failures += 1;
      this.#log.error(`A worker could not be replaced: ${failure.message}`);
    }
  }

  /** What all of them have in flight, asked for now; who does not answer in time counts as last heard. */
  async sum(): Promise<{
    inFlight: number;
    oldest: OpenRequest[];
    snapshots: NonNullable<WorkerHandle['snapshot']>[];
    workers: WorkerStatus[];
  }> {
    const all = [...this.#all];
    await within(ANSWER_MS, Promise.all(all.map((worker) => worker.ask())));
    const snapshots = all.flatMap(({ snapshot }) => (snapshot === undefined ? [] : [snapshot]));
    return {
      inFlight: all.reduce((sum, { inFlightCount }) => sum + inFlightCount, 0),
      oldest: all.flatMap(({ inFlight }) => inFlight).sort((a, b) => b.age_ms - a.age_ms),
      snapshots,
      workers: all.map((worker) => ({
        pid: worker.pid,
        generation: worker.generation,
        state: worker.readyMs === undefined ? 'starting' : worker.dismissed ? 'retiring' : 'serving',
        in_flight: worker.inFlightCount,
        connections: worker.snapshot?.status.connections.open ?? 0,
        heard_ms_ago: Math.round(performance.now() - worker.heardMs),
      })),
    };
  }
}
