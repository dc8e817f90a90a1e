import { type ChildProcess, fork } from 'node:child_process';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { ExitCode } from '../../exit-code.ts';
import type { CutRequest, ShutdownReport } from '../../lifecycle/last-shutdown.ts';
import type { MetricsSnapshot } from '../../ops/metrics.ts';
import type { OpenRequest } from '../../ops/status.ts';
import { afterReading, within } from '../../platform/deadline.ts';
import { type Drained, type FromWorker, RECORDER_FD, type ToWorker, WORKER_VARIABLE } from './messages.ts';
import { type Milestone, milestone } from './milestone.ts';

/** How long the last words of a process that has ended may take to be read. */
const LAST_WORDS_MS = 500;

/** What a worker tells that concerns more than itself. */
export interface WorkerEvents {
  emergency(reason: string, by: string): void;
  /** It has locked itself; `exitCode` tells why, 0 that it was told to. */
  locked(worker: WorkerHandle, exitCode: ExitCode): void;
  drained(worker: WorkerHandle, drained: Drained): void;
  /** Connections that were meant for it and have not reached it. */
  returned(sockets: readonly Socket[]): void;
  ended(worker: WorkerHandle): void;
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
  readonly #events: WorkerEvents;
  readonly #ready: Milestone<StartFailure | undefined> = milestone();
  readonly #locked: Milestone<number> = milestone();
  readonly #drained: Milestone<Drained> = milestone();
  readonly #ended: Milestone<void> = milestone();
  /** Handed over, and not taken yet; by number, the oldest first. */
  readonly #onTheirWay = new Map<number, Socket>();
  #handed = 0;
  /** Set when its part in the service is over: nobody replaces it. */
  dismissed = false;
  /** Monotonic milliseconds of its last sign of life. */
  heardMs = performance.now();
  snapshot: MetricsSnapshot | undefined;
  report: ShutdownReport | undefined;
  readyMs: number | undefined;
  /** What it had in flight when it ended without a report. */
  lost: readonly CutRequest[] = [];
  /** What was in flight when its event loop stood still, as its recorder has told, and when that was. */
  #recorded: { requests: readonly CutRequest[]; atMs: number } | undefined;
  #answer: Milestone<void> | undefined;

  /** @throws the system's error when there can be no new process; some of those errors end the worker instead */
  constructor(generation: number, env: NodeJS.ProcessEnv, events: WorkerEvents) {
    this.generation = generation;
    this.#events = events;
    const [main = ''] = process.argv.slice(1);
    this.#child = fork(main, [], {
      env: { ...env, [WORKER_VARIABLE]: String(generation) },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', 'pipe'],
    });
    const child = this.#child;
    const closed = new Promise<void>((resolve) => child.once('close', resolve));
    child.on('message', (message: FromWorker) => this.#hear(message));
    child.on('error', (error) => {
      // A channel that breaks is noticed by the exit. A process that never was has none.
      if (child.pid === undefined) this.#end(`the worker could not be started: ${error.message}`);
    });
    child.once('exit', () => {
      // What it said last may not be read yet: the exit and the channel are two sources of events. When the time is
      // over the loop reads once more all the same: in a process that stood still the timers fire first.
      void within(LAST_WORDS_MS, closed)
        .then(() => afterReading(0))
        .then(() => this.#end(`the worker ended ${this.end} before it was ready`));
    });
    this.#listenToRecorder();
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get alive(): boolean {
    return this.#child.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** How it ended, for people. */
  get end(): string {
    const { exitCode, signalCode } = this.#child;
    return signalCode === null ? `with code ${exitCode}` : `by ${signalCode}`;
  }

  /** Serving, as far as it has said. */
  get isReady(): boolean {
    return this.canTake && !this.dismissed;
  }

  /** Whether a connection that is handed to it would be answered, if only with 503. */
  get canTake(): boolean {
    return this.readyMs !== undefined && this.alive && this.#child.connected;
  }

  /** Resolves to undefined when it serves, or to why it never will. */
  get ready(): Promise<StartFailure | undefined> {
    return this.#ready.promise;
  }

  /** Resolves, at the lock, to the number of requests that were in flight; to 0 when it is gone. */
  get locked(): Promise<number> {
    return this.#locked.promise;
  }

  /** Resolves when nothing is in flight any more. */
  get drained(): Promise<Drained> {
    return this.#drained.promise;
  }

  get hasDrained(): boolean {
    return this.#drained.reached;
  }

  /** Resolves when the process is gone and all it has said is read. */
  get ended(): Promise<void> {
    return this.#ended.promise;
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

  /**
   * Hands over a connection. It is kept open here too until the worker has said that it has taken it: of one that
   * ends before that, blocked or killed, it comes back and is given to somebody else.
   */
  hand(socket: Socket): void {
    this.#handed += 1;
    const number = this.#handed;
    this.#onTheirWay.set(number, socket);
    const message: ToWorker = { type: 'connection', number };
    this.#child.send(message, socket, { keepOpen: true }, (error) => {
      if (error !== null && this.#onTheirWay.delete(number)) this.#events.returned([socket]);
    });
  }

  /** Asks for fresh figures. Resolves when they have come, or the worker is gone. */
  ask(): Promise<void> {
    if (!this.canTake) return Promise.resolve();
    if (this.#answer === undefined) {
      this.#answer = milestone();
      this.tell({ type: 'ask' });
    }
    return this.#answer.promise;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #hear(message: FromWorker): void {
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
        this.#answered();
        return;
      case 'taken':
        this.#taken(message.number);
        return;
      case 'locked':
        this.#locked.reach(message.inFlight);
        this.#events.locked(this, message.exitCode);
        return;
      case 'drained':
        this.#drained.reach(message);
        this.#events.drained(this, message);
        return;
      case 'emergency':
        this.#events.emergency(message.reason, message.by);
        return;
      case 'stopped':
        this.report = message.report;
        this.snapshot = message.snapshot;
    }
  }

  /** They are taken in their order: what is older could not be received, for want of descriptors. */
  #taken(number: number): void {
    for (const [older, socket] of this.#onTheirWay) {
      if (older > number) return;
      this.#onTheirWay.delete(older);
      // Closes the copy of this process, which says nothing to the client.
      if (older === number) socket.destroy();
      else this.#events.returned([socket]);
    }
  }

  #answered(): void {
    this.#answer?.reach();
    this.#answer = undefined;
  }

  #end(why: string): void {
    if (this.#ended.reached) return;
    if (this.report === undefined && this.readyMs !== undefined && !this.hasDrained) {
      this.lost = this.inFlight.map(({ id, method, path, age_ms }) => ({ id, method, path, age_ms }));
    }
    this.#ready.reach({ message: why, exitCode: undefined });
    this.#locked.reach(0);
    this.#drained.reach({ cut: this.lost, forced: false });
    this.#answered();
    this.#ended.reach();
    const untaken = [...this.#onTheirWay.values()];
    this.#onTheirWay.clear();
    this.#events.ended(this);
    if (untaken.length > 0) this.#events.returned(untaken);
  }

  #listenToRecorder(): void {
    // Without a process there are no streams either, whatever the type says.
    const recorder = this.#child.stdio?.[RECORDER_FD] as Readable | null | undefined;
    if (!recorder) return;
    recorder.on('error', () => undefined);
    createInterface({ input: recorder }).on('line', (line) => {
      const requests = parseRequests(line);
      if (requests !== undefined) this.#recorded = { requests, atMs: performance.now() };
    });
  }
}

/** Undefined for a line that was torn by the end of its writer. */
function parseRequests(line: string): readonly CutRequest[] | undefined {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
