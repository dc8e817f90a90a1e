import { setMaxListeners } from 'node:events';
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import type { AuditLog } from '../../audit/audit-log.ts';
import { completedLately } from '../../audit/completed.ts';
import { auditFile, type Config } from '../../config/settings.ts';
import type { CloseLimits, Host } from '../../control/backend.ts';
import { FLUSH_MS } from '../../control/stop-budget.ts';
import { ExitCode, StartError } from '../../exit-code.ts';
import type { StopOrder } from '../../lifecycle/lifecycle.ts';
import { aborted, seconds, within } from '../../platform/deadline.ts';
import { deferred } from '../../platform/deferred.ts';
import type { HeldSocket } from '../../platform/listen.ts';
import { plural } from '../../plural.ts';
import { backOff } from '../back-off.ts';
import { Balancer } from './balancer.ts';
import { RECORD_MS } from './flight-recorder.ts';
import { BEAT_MS, type Calls } from './messages.ts';
import { forgetPlan, type Plan } from './plan.ts';
import { type Spawner, startGeneration, tryToStart } from './start-generation.ts';
import { addDeparted, type Departed, NOBODY } from './totals.ts';
import { WorkerHandle, type WorkerState } from './worker-handle.ts';

/** A worker that has served so long has not died at once. */
const SETTLED_MS = 10_000;
/** The longest that idle connections may keep a retired worker. */
const LONGEST_LINGER_MS = 90_000;
/** How long new workers may take to listen before the old ones stop accepting. */
const LISTEN_MS = 2_000;
/** How long workers may take to answer a request for figures. */
const ANSWER_MS = 500;
/** How long the system may take to end processes that were killed. */
const REAP_MS = 2_000;

/** The workers: those that serve, those that are being started, and those that leave. */
export class WorkerPool {
  readonly #host: Host;
  readonly #log: Logger;
  #audit: AuditLog | undefined;
  /** Every process alive. */
  readonly #all = new Set<WorkerHandle>();
  /** Those that connections are handed to. */
  #serving: WorkerHandle[] = [];
  readonly #balancer: Balancer;
  readonly #spawner: Spawner;
  readonly #stop = new AbortController();
  /** A socket that those that serve listen on themselves; without one they are handed what is accepted here. */
  #socket: HeldSocket | undefined;
  /** Where the first one that listens on it does so, or why it cannot. */
  readonly #listening = deferred<Calls['listen']['result']>();
  /** What those that serve were made from. */
  #plan: Plan | undefined;
  #failures = 0;
  departed: Departed = NOBODY;
  readonly replaced = { ended: 0, blocked: 0 };

  constructor(host: Host) {
    this.#host = host;
    this.#log = host.log;
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
      log: host.log,
      stop: this.#stop.signal,
      spawn: (plan, slot) => this.#spawn(plan, slot),
      end: (worker) => this.#kill(worker),
    };
  }

  get #stopping(): boolean {
    return this.#stop.signal.aborted;
  }

  /** The generation that serves. */
  get generation(): number {
    return this.#plan?.generation ?? 0;
  }

  get ready(): boolean {
    return this.#serving.some(({ isReady }) => isReady);
  }

  get all(): WorkerHandle[] {
    return [...this.#all];
  }

  use(audit: AuditLog | undefined): void {
    this.#audit = audit;
  }

  /** Starts a generation. @throws StartError when one of it does not become ready; then none of it is left */
  async startGeneration(plan: Plan): Promise<WorkerHandle[]> {
    try {
      return await startGeneration(this.#spawner, plan);
    } catch (error) {
      forgetPlan(plan);
      throw error;
    }
  }

  #spawn(plan: Plan, slot: number): WorkerHandle {
    const file = auditFile(plan.config);
    const worker = new WorkerHandle(plan, slot, {
      admin: (request) => this.#host.admin.ask(request),
      auditLost: (error) => this.#host.auditLost(error),
      crashed: (broken) => this.#crashed(broken),
      cut: (requests) => this.#host.cut(requests),
      completed: async (idsBegin) => (file === undefined ? new Set() : completedLately(file, idsBegin)),
      passedOn: (socket, by) => this.#balancer.give(socket, by),
      returned: (sockets) => {
        for (const socket of sockets) this.hand(socket);
      },
      ended: (gone, was) => this.#ended(gone, was),
    });
    this.#all.add(worker);
    this.#host.changed();
    void worker.ready.then(() => this.#host.changed());
    return worker;
  }

  /**
   * Has those that serve listen on a socket that is held here.
   * @returns where, or the code of the system's error
   * @throws StartError when none does in time
   */
  async listen(socket: HeldSocket, timeoutMs: number): Promise<Calls['listen']['result']> {
    this.#socket = socket;
    for (const worker of this.#serving) void this.#listen(worker);
    let result: Calls['listen']['result'] | undefined;
    const listening = this.#listening.promise.then((first) => {
      result = first;
    });
    // One that has died meanwhile is replaced.
    await within(timeoutMs, Promise.race([listening, aborted(this.#stop.signal)]));
    if (result !== undefined) return result;
    if (this.#stopping) throw new StartError('the service is stopping', ExitCode.Ok);
    throw new StartError(`no worker listened after ${seconds(timeoutMs)}s`, ExitCode.Internal);
  }

  async #listen(worker: WorkerHandle): Promise<void> {
    if (this.#socket === undefined) return;
    const result = await worker.listen(this.#socket.handle);
    if (result !== undefined) this.#listening.resolve(result);
  }

  /** Lets go of that socket. What listens on it already goes on. */
  takeSocket(): HeldSocket | undefined {
    const socket = this.#socket;
    this.#socket = undefined;
    return socket;
  }

  /** From now on these serve; those that did so far retire. Resolves when what comes goes to the new ones alone. */
  async activate(workers: WorkerHandle[], plan: Plan): Promise<void> {
    const old = this.#serving;
    if (this.#plan !== undefined) forgetPlan(this.#plan);
    this.#plan = plan;
    this.#failures = 0;
    // Replaced in one step: a connection goes to an old worker before its word to retire, or to a new one.
    this.#serving = workers;
    this.#balancer.giveWaiting();
    // One may have died, or broken, while the others became ready.
    for (const worker of workers) if (!worker.isReady) this.#replaceFailed(worker);
    // What comes between is taken by either.
    await within(LISTEN_MS, Promise.all(workers.map((worker) => this.#listen(worker))));
    const leaving = old.filter(({ state }) => state === 'serving');
    await Promise.all(leaving.map((worker) => worker.stopAccepting()));
    for (const worker of leaving) if (worker.state === 'serving') void this.#retire(worker, plan.config);
  }

  async #retire(worker: WorkerHandle, { keepAliveTimeoutMs, shutdownTimeoutMs }: Config): Promise<void> {
    worker.state = 'leaving';
    const idleMs = keepAliveTimeoutMs === 0 ? LONGEST_LINGER_MS : keepAliveTimeoutMs + 2 * BEAT_MS;
    const lingerMs = Math.min(idleMs, LONGEST_LINGER_MS);
    await within(lingerMs, Promise.race([worker.retire(), aborted(this.#stop.signal)]));
    await this.#drain(worker, shutdownTimeoutMs, 'retirement');
  }

  /** The end of one worker while the others serve on: what the stop does with all of them, unless the stop overtakes it. */
  async #drain(worker: WorkerHandle, timeoutMs: number, reason: string): Promise<void> {
    const stopped = aborted(this.#stop.signal);
    if (this.#stopping) return;
    const lockAtMs = performance.now();
    await worker.lock({ reason, orderedAt: new Date(), lockAtMs, deadlineMs: lockAtMs + timeoutMs });
    const inTime = await within(timeoutMs, Promise.race([worker.drained(), stopped]));
    if (this.#stopping) return;
    if (!inTime) {
      const { requests, holds, blocked } = await worker.cut('the time is over');
      if (blocked) this.#sayBlocked(worker);
      this.#host.cut(requests, holds);
    }
    await this.close(worker, { drained: inTime, stopMs: FLUSH_MS, closeMs: FLUSH_MS });
  }

  /** Has a worker stop its application and leave. */
  async close(worker: WorkerHandle, limits: CloseLimits): Promise<void> {
    if (worker.state === 'gone') await worker.ended;
    else if (!(await worker.close(limits)))
      this.#log.error(`Worker ${worker.pid} did not leave and was killed`);
  }

  #sayBlocked({ pid }: WorkerHandle): void {
    this.#log.error(`Worker ${pid} did not answer: its event loop was blocked. Killed`);
  }

  hand(socket: Socket): void {
    this.#balancer.give(socket);
  }

  /** No worker is left that could take them. */
  dropWaiting(): void {
    this.#balancer.dropWaiting();
  }

  reopen(): void {
    for (const worker of this.#all) worker.tell({ type: 'reopen' });
  }

  /** From now on nothing is started or replaced. */
  stopOrdered(order: StopOrder): void {
    this.#stop.abort();
    for (const worker of this.#all) worker.stopOrdered(order);
  }

  /** Cuts what is in flight in all of them. */
  async cutAll(reason: string): Promise<Awaited<ReturnType<WorkerHandle['cut']>>[]> {
    return Promise.all(
      this.all.map(async (worker) => {
        const cut = await worker.cut(reason);
        if (cut.blocked) this.#sayBlocked(worker);
        return cut;
      }),
    );
  }

  async killAll(): Promise<void> {
    this.#stop.abort();
    const { all } = this;
    for (const worker of all) this.#kill(worker);
    await within(REAP_MS, Promise.all(all.map(({ ended }) => ended)));
  }

  #kill(worker: WorkerHandle): void {
    worker.state = 'leaving';
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

  /** Whether every worker that serves was heard of lately. */
  isFresh(withinMs: number): boolean {
    return this.#serving.every(({ isReady, heardMs }) => !isReady || performance.now() - heardMs <= withinMs);
  }

  /** Its application has broken. It finishes what it has, and is replaced before it is gone. */
  #crashed(worker: WorkerHandle): void {
    if (this.#stopping || worker.state === 'leaving') return;
    worker.state = 'leaving';
    void this.#drain(worker, this.#plan?.config.shutdownTimeoutMs ?? FLUSH_MS, 'crash');
    if (!this.#serving.includes(worker)) return;
    this.#log.error(`Worker ${worker.pid} stops by itself and is replaced`);
    this.#replaceFailed(worker);
  }

  #ended(worker: WorkerHandle, was: WorkerState): void {
    this.#all.delete(worker);
    const { pid, end, lost, heardMs } = worker;
    const count = lost.requests.length + lost.unnamed;
    if (worker.status !== undefined) this.departed = addDeparted(this.departed, worker.status, count);
    if (worker.closed === undefined && worker.readyMs !== undefined) {
      // It can no longer put on record what was lost with it.
      this.#audit?.record('worker_end', {
        pid,
        end,
        heard_ms_ago: Math.round(performance.now() - heardMs),
        in_flight: count,
        unnamed: lost.unnamed,
        // What came in its last moments is in no file.
        unseen_ms: RECORD_MS,
      });
      for (const { reason: _, ...request } of lost.requests) this.#audit?.record('cut', { pid, ...request });
      if (was !== 'cut') {
        const more = lost.unnamed > 0 ? `, ${lost.unnamed} of them not named` : '';
        this.#log.warn(
          `Worker ${pid} had ${plural(count, 'request')} in flight${more}; what came in its last ${RECORD_MS} ms is not known`,
        );
        this.#host.cut(lost.requests);
      }
    }
    this.#host.changed();
    if (this.#stopping || was !== 'serving' || !this.#serving.includes(worker)) return;
    this.#log.error(`Worker ${pid} has ended ${end} and is replaced`);
    this.#replaceFailed(worker);
  }

  #replaceFailed(worker: WorkerHandle): void {
    const slot = this.#serving.indexOf(worker);
    const plan = this.#plan;
    if (slot === -1 || plan === undefined || this.#stopping) return;
    this.replaced.ended += 1;
    const served = performance.now() - (worker.readyMs ?? performance.now());
    this.#failures = served >= SETTLED_MS ? 0 : this.#failures + 1;
    void this.#replace(slot, plan);
  }

  /** Tries until there is one again: an application that cannot start now may be able to later. */
  async #replace(slot: number, plan: Plan): Promise<void> {
    for (;;) {
      await backOff(this.#failures - 1, this.#stop.signal);
      // A reload may have replaced all of them meanwhile.
      if (this.#stopping || this.#plan !== plan) return;
      const { worker, failure } = await tryToStart(this.#spawner, plan, slot);
      if (this.#stopping) return;
      if (this.#plan !== plan) {
        if (worker !== undefined) this.#kill(worker);
        return;
      }
      if (worker !== undefined) {
        this.#serving[slot] = worker;
        void this.#listen(worker);
        this.#log.info(`Worker ${worker.pid} serves in place of the one that has ended`);
        this.#balancer.giveWaiting();
        if (!worker.isReady) this.#replaceFailed(worker);
        return;
      }
      this.#failures += 1;
      this.#log.error(`A worker could not be replaced: ${failure.message}`);
    }
  }

  /** All workers, with what they have in flight, asked for now; one that does not answer in time counts as last heard. */
  async refreshed(): Promise<readonly WorkerHandle[]> {
    const { all } = this;
    await within(ANSWER_MS, Promise.all(all.map((worker) => worker.refresh())));
    return all;
  }
}
