import { type ChildProcess, fork } from 'node:child_process';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { ExitCode } from '../lifecycle/exit-code.ts';
import type { CutRequest, ShutdownReport } from '../lifecycle/shutdown-record.ts';
import type { MetricsSnapshot } from '../routes/metrics.ts';
import type { OpenRequest } from '../routes/status.ts';
import { type FromWorker, RECORDER_FD, type ToWorker, WORKER_VARIABLE } from './messages.ts';

/** What a worker tells that concerns more than itself. */
export interface WorkerEvents {
  emergency(reason: string, by: string): void;
  /** It has locked itself, or was told to. */
  locked(worker: WorkerHandle): void;
  exited(worker: WorkerHandle): void;
}

/** How a worker's start ended when it did not end well. */
export interface StartFailure {
  readonly message: string;
  /** Undefined when the process ended without saying why. */
  readonly exitCode: ExitCode | undefined;
}

/** A worker as the supervisor sees it: a process, what it last said, and promises for what it is going to say. */
export class WorkerHandle {
  readonly generation: number;
  readonly #child: ChildProcess;
  readonly #ready = milestone<StartFailure | undefined>();
  readonly #locked = milestone<number>();
  readonly #drained = milestone<readonly CutRequest[]>();
  readonly #exited = milestone<void>();
  readonly startedMs = performance.now();
  /** Set when its part in the service is over: nobody replaces it. */
  dismissed = false;
  /** Monotonic milliseconds of its last sign of life. */
  heardMs = performance.now();
  snapshot: MetricsSnapshot | undefined;
  report: ShutdownReport | undefined;
  readyMs: number | undefined;
  /** What was in flight when its event loop stood still, as its recorder has told, and when that was. */
  #recorded: { requests: readonly CutRequest[]; atMs: number } | undefined;
  #asked: (() => void)[] = [];

  constructor(generation: number, env: NodeJS.ProcessEnv, events: WorkerEvents) {
    this.generation = generation;
    const [main = ''] = process.argv.slice(1);
    this.#child = fork(main, [], {
      env: { ...env, [WORKER_VARIABLE]: String(generation) },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', 'pipe'],
    });
    this.#child.on('message', (message: FromWorker) => this.#hear(message, events));
    // A channel that breaks is noticed by the exit; without a listener it would end this process.
    this.#child.on('error', () => undefined);
    this.#child.once('exit', (code, signal) => {
      const how = signal === null ? `with code ${code}` : `by ${signal}`;
      this.#ready.reach({ message: `the worker ended ${how} before it was ready`, exitCode: undefined });
      this.#locked.reach(0);
      this.#drained.reach([]);
      this.#exited.reach();
      for (const resolve of this.#asked.splice(0)) resolve();
      events.exited(this);
    });
    const recorder = this.#child.stdio[RECORDER_FD] as Readable | null | undefined;
    if (recorder) {
      createInterface({ input: recorder }).on('line', (line) => {
        this.#recorded = { requests: JSON.parse(line), atMs: performance.now() };
      });
      recorder.on('error', () => undefined);
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** How it ended, for people. */
  get end(): string {
    return this.#child.signalCode ?? `exit ${this.#child.exitCode}`;
  }

  /** Serving, as far as it has said. */
  get isReady(): boolean {
    return this.readyMs !== undefined && this.alive && !this.dismissed;
  }

  /** Resolves to undefined when it serves, or to why it never will. */
  get ready(): Promise<StartFailure | undefined> {
    return this.#ready.promise;
  }

  /** Resolves, at the lock, to the number of requests that were in flight; to 0 when it is gone. */
  get locked(): Promise<number> {
    return this.#locked.promise;
  }

  /** Resolves, when nothing is in flight any more, to what had to be cut. */
  get drained(): Promise<readonly CutRequest[]> {
    return this.#drained.promise;
  }

  get hasDrained(): boolean {
    return this.#drained.reached;
  }

  get exited(): Promise<void> {
    return this.#exited.promise;
  }

  /** What it had in flight when it was last heard of: from its recorder when its loop stands still. */
  get inFlight(): readonly OpenRequest[] {
    if (this.#recorded !== undefined && this.#recorded.atMs > this.heardMs) {
      const { requests, atMs } = this.#recorded;
      const since = Math.round(performance.now() - atMs);
      return requests.map((request) => ({ ...request, age_ms: request.age_ms + since, phase: 'working' }));
    }
    return this.snapshot?.status.in_flight.oldest ?? [];
  }

  /** How many those are: the list names only the oldest. */
  get inFlightCount(): number {
    return Math.max(this.snapshot?.status.in_flight.count ?? 0, this.inFlight.length);
  }

  tell(message: ToWorker): void {
    if (this.#child.connected) this.#child.send(message, () => undefined);
  }

  /** Hands over a connection; false when the worker cannot take it. */
  hand(socket: Socket): boolean {
    if (!this.#child.connected) return false;
    return this.#child.send(
      { type: 'connection' } satisfies ToWorker,
      socket,
      { keepOpen: false },
      () => undefined,
    );
  }

  /** Asks for fresh figures. Resolves when they have come, or the worker is gone. */
  ask(): Promise<void> {
    if (!this.alive || this.readyMs === undefined) return Promise.resolve();
    this.tell({ type: 'ask' });
    return new Promise((resolve) => this.#asked.push(resolve));
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #hear(message: FromWorker, events: WorkerEvents): void {
    this.heardMs = performance.now();
    switch (message.type) {
      case 'ready':
        this.readyMs = performance.now();
        this.#ready.reach(undefined);
        return;
      case 'failed':
        this.#ready.reach({ message: message.message, exitCode: message.exitCode });
        return;
      case 'beat':
        this.snapshot = message.snapshot;
        for (const resolve of this.#asked.splice(0)) resolve();
        return;
      case 'locked':
        this.#locked.reach(message.inFlight);
        events.locked(this);
        return;
      case 'drained':
        this.#drained.reach(message.cut);
        return;
      case 'emergency':
        events.emergency(message.reason, message.by);
        return;
      case 'stopped':
        this.report = message.report;
        this.snapshot = message.snapshot;
    }
  }
}

interface Milestone<T> {
  readonly promise: Promise<T>;
  readonly reached: boolean;
  /** Only the first time counts. */
  reach(value: T): void;
}

function milestone<T>(): Milestone<T> {
  let resolve: (value: T) => void = () => undefined;
  let reached = false;
  const promise = new Promise<T>((fulfil) => {
    resolve = fulfil;
  });
  return {
    promise,
    get reached() {
      return reached;
    },
    reach: (value) => {
      reached = true;
      resolve(value);
    },
  };
}
