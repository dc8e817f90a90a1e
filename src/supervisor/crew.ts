import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { within } from '../lifecycle/deadline.ts';
import { ExitCode, StartError } from '../lifecycle/exit-code.ts';
import type { CutRequest } from '../lifecycle/shutdown-record.ts';
import type { OpenRequest, WorkerStatus } from '../routes/status.ts';
import { BEAT_MS, type ToWorker } from './messages.ts';
import { addDeparted, type Departed, NOBODY } from './totals.ts';
import { type StartFailure, WorkerHandle } from './worker-handle.ts';

/** A worker that dies before it is ready, without a word, is tried so often. */
const MOST_ATTEMPTS = 5;
const FIRST_BACKOFF_MS = 100;
const LONGEST_BACKOFF_MS = 5_000;
/** A worker that has served so long has not died at once. */
const SETTLED_MS = 10_000;
/** The longest that idle connections may keep a retired worker. */
const LONGEST_LINGER_MS = 90_000;
/** How long workers may take to answer when somebody asks for figures. */
const ANSWER_MS = 500;
/** Connections that wait for a worker, while there is none. */
const MOST_WAITING = 1_024;

/** What the supervisor has to know of its workers. */
export interface CrewEvents {
  cut(worker: WorkerHandle, requests: readonly CutRequest[]): void;
  emergency(reason: string, by: string): void;
  auditLost(): void;
}

/** The workers: those that serve, those that are being started, and those that retire. */
export class Crew {
  readonly #log: Logger;
  readonly #events: CrewEvents;
  /** Everybody alive. */
  readonly #all = new Set<WorkerHandle>();
  /** Those that connections are handed to. */
  #serving: WorkerHandle[] = [];
  #next = 0;
  #waiting: Socket[] = [];
  #stopping = false;
  #config: Config | undefined;
  #variables: NodeJS.ProcessEnv = {};
  #size = 0;
  #failures = 0;
  generation = 0;
  departed: Departed = NOBODY;
  /** Workers that were replaced because they ended, and those of them that were killed for standing still. */
  readonly replaced = { ended: 0, blocked: 0 };

  constructor(log: Logger, events: CrewEvents) {
    this.#log = log;
    this.#events = events;
  }

  /** How many there should be. */
  get size(): number {
    return this.#size;
  }

  get ready(): boolean {
    return this.#serving.some(({ isReady }) => isReady);
  }

  /** Starts a generation. @throws StartError when one of it does not become ready; then none of it is left */
  async raise(generation: number, config: Config, variables: NodeJS.ProcessEnv): Promise<WorkerHandle[]> {
    const attempts = await Promise.allSettled(
      Array.from({ length: config.workers }, () => this.#raiseOne(generation, config, variables)),
    );
    const workers = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
    const failed = attempts.find((attempt) => attempt.status === 'rejected');
    if (failed === undefined) return workers;
    for (const worker of workers) this.#end(worker);
    throw failed.reason;
  }

  async #raiseOne(generation: number, config: Config, variables: NodeJS.ProcessEnv): Promise<WorkerHandle> {
    for (let attempt = 1; ; attempt += 1) {
      if (this.#stopping) throw new StartError('the service is stopping', ExitCode.Ok);
      const worker = this.#spawn(generation, variables);
      const failure = await becomeReady(worker, config.startTimeoutMs);
      if (failure === undefined) return worker;
      this.#end(worker);
      // Who says why will say it again; who just dies may have been unlucky.
      if (failure.exitCode !== undefined || attempt === MOST_ATTEMPTS) {
        const tries = failure.exitCode === undefined ? `, ${attempt} times in a row` : '';
        throw new StartError(`${failure.message}${tries}`, failure.exitCode ?? ExitCode.Internal);
      }
      this.#log.error(`${failure.message}: trying again`);
      await pause(backoff(attempt));
    }
  }

  #spawn(generation: number, variables: NodeJS.ProcessEnv): WorkerHandle {
    const worker = new WorkerHandle(generation, variables, {
      emergency: this.#events.emergency,
      locked: (leaving) => this.#leaving(leaving),
      exited: (gone) => this.#exited(gone),
    });
    this.#all.add(worker);
    return worker;
  }

  /** From now on these serve; those that did so far retire. */
  appoint(workers: WorkerHandle[], config: Config, variables: NodeJS.ProcessEnv): void {
    const old = this.#serving;
    this.#config = config;
    this.#variables = variables;
    this.#size = workers.length;
    this.#failures = 0;
    this.generation = workers[0]?.generation ?? this.generation;
    // Replaced in one step: a connection goes to an old worker before its word to retire, or to a new one.
    this.#serving = workers;
    for (const worker of old) this.#retire(worker, config);
    this.#handWaiting();
    // One may have died while the others became ready.
    for (const worker of workers) if (!worker.alive) this.#exited(worker);
  }

  #retire(worker: WorkerHandle, config: Config): void {
    worker.dismissed = true;
    const lingerMs = Math.min(config.keepAliveTimeoutMs + 2_000, LONGEST_LINGER_MS);
    worker.tell({ type: 'retire', lingerMs });
    const mostMs = lingerMs + config.shutdownTimeoutMs + LONGEST_BACKOFF_MS;
    void within(mostMs, worker.exited).then((left) => {
      if (left) return;
      this.#log.error(`Worker ${worker.pid} did not retire in ${mostMs / 1000}s and is killed`);
      this.#end(worker);
    });
  }

  /** Gives a connection to the next worker, one whose loop turns if there is one. */
  hand(socket: Socket): void {
    const ready = this.#serving.filter(({ isReady }) => isReady);
    const fresh = ready.filter(({ heardMs }) => performance.now() - heardMs < 2 * BEAT_MS);
    const candidates = fresh.length > 0 ? fresh : ready;
    this.#next += 1;
    const worker = candidates[this.#next % candidates.length];
    if (worker !== undefined) worker.hand(socket);
    else if (this.#waiting.length < MOST_WAITING && !this.#stopping) this.#waiting.push(socket);
    // During a stop there may be workers left that retire or are not appointed: they answer with 503.
    else {
      const anyone = [...this.#all].find(({ alive, readyMs }) => alive && readyMs !== undefined);
      if (anyone === undefined) socket.destroy();
      else anyone.hand(socket);
    }
  }

  #handWaiting(): void {
    for (const socket of this.#waiting.splice(0)) this.hand(socket);
  }

  dropWaiting(): void {
    for (const socket of this.#waiting.splice(0)) socket.destroy();
  }

  tellAll(message: ToWorker): void {
    for (const worker of this.#all) worker.tell(message);
  }

  /** Everybody's part is over: nobody is replaced any more. Returns who is left. */
  dismissAll(): WorkerHandle[] {
    this.#stopping = true;
    for (const worker of this.#all) {
      worker.dismissed ||= worker.readyMs === undefined;
      // Who is not ready has nothing in flight.
      if (worker.readyMs === undefined) this.#end(worker);
    }
    return [...this.#all];
  }

  async killAll(): Promise<void> {
    this.#stopping = true;
    const all = [...this.#all];
    for (const worker of all) this.#end(worker);
    await Promise.all(all.map(({ exited }) => exited));
  }

  #end(worker: WorkerHandle): void {
    worker.dismissed = true;
    worker.kill();
  }

  /** Kills workers that have not shown for so long that their event loop turns. They are replaced like any that end. */
  endBlocked(timeoutMs: number): void {
    for (const worker of this.#all) {
      if (worker.readyMs === undefined || !worker.alive) continue;
      const silentMs = performance.now() - worker.heardMs;
      if (silentMs <= timeoutMs) continue;
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

  /** A worker that stops by itself, because its application has crashed, is replaced before it is gone. */
  #leaving(worker: WorkerHandle): void {
    const slot = this.#serving.indexOf(worker);
    if (slot === -1 || this.#stopping || worker.dismissed) return;
    worker.dismissed = true;
    this.#log.error(`Worker ${worker.pid} stops by itself and is replaced`);
    this.#replaceFailed(worker, slot);
  }

  #replaceFailed(worker: WorkerHandle, slot: number): void {
    this.replaced.ended += 1;
    const served = performance.now() - (worker.readyMs ?? performance.now());
    this.#failures = served >= SETTLED_MS ? 0 : this.#failures + 1;
    void this.#replace(slot, this.generation);
  }

  #exited(worker: WorkerHandle): void {
    if (!this.#all.delete(worker)) return;
    if (worker.snapshot !== undefined) this.departed = addDeparted(this.departed, worker.snapshot);
    if (worker.report?.exit_code === ExitCode.AuditLost) this.#events.auditLost();
    const slot = this.#serving.indexOf(worker);
    if (worker.report === undefined && worker.readyMs !== undefined && !this.#stopping) {
      this.#events.cut(worker, worker.inFlight);
    }
    if (slot === -1 || this.#stopping || worker.dismissed) return;
    this.#log.error(`Worker ${worker.pid} has ended (${worker.end}) and is replaced`);
    this.#replaceFailed(worker, slot);
  }

  /** Tries until there is one again: an application that cannot start now may be able to later. */
  async #replace(slot: number, generation: number): Promise<void> {
    for (;;) {
      await pause(backoff(this.#failures - 1));
      // A reload may have replaced everybody meanwhile.
      if (this.#stopping || this.generation !== generation || this.#config === undefined) return;
      const worker = this.#spawn(generation, this.#variables);
      const failure = await becomeReady(worker, this.#config.startTimeoutMs);
      if (this.#stopping || this.generation !== generation) {
        this.#end(worker);
        return;
      }
      if (failure === undefined) {
        this.#serving[slot] = worker;
        this.#log.info(`Worker ${worker.pid} serves in place of the one that has ended`);
        this.#handWaiting();
        if (!worker.alive) this.#exited(worker);
        return;
      }
      this.#failures += 1;
      this.#log.error(`A worker could not be replaced: ${failure.message}`);
      this.#end(worker);
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
        state:
          worker.readyMs === undefined ? 'starting' : this.#serving.includes(worker) ? 'serving' : 'retiring',
        in_flight: worker.inFlightCount,
        connections: worker.snapshot?.status.connections.open ?? 0,
        heard_ms_ago: Math.round(performance.now() - worker.heardMs),
      })),
    };
  }
}

/** Undefined when it is ready in time. */
async function becomeReady(worker: WorkerHandle, timeoutMs: number): Promise<StartFailure | undefined> {
  let outcome: { failure: StartFailure | undefined } | undefined;
  await within(
    timeoutMs,
    worker.ready.then((failure) => {
      outcome = { failure };
    }),
  );
  const late = {
    message: `the worker was not ready after ${timeoutMs / 1000}s`,
    exitCode: ExitCode.Internal,
  };
  return outcome === undefined ? late : outcome.failure;
}

function backoff(failures: number): number {
  return failures <= 0 ? 0 : Math.min(FIRST_BACKOFF_MS * 2 ** (failures - 1), LONGEST_BACKOFF_MS);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
