import { type ChildProcess, fork, type SendHandle } from 'node:child_process';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import type { BackendStatus, Closed, CloseLimits, Cut } from '../../control/backend.ts';
import { ExitCode } from '../../exit-code.ts';
import type { CutRequest } from '../../lifecycle/last-shutdown.ts';
import type { StopOrder } from '../../lifecycle/lifecycle.ts';
import type { AdminAnswer, AdminRequest } from '../../ops/admin.ts';
import type { OpenWork } from '../../ops/status.ts';
import { afterReading, within } from '../../platform/deadline.ts';
import { type Deferred, deferred } from '../../platform/deferred.ts';
import { unread } from '../../platform/listen.ts';
import { type Flight, openFlightFile, readFlight } from './flight-record.ts';
import {
  type CallName,
  type Calls,
  type FromWorker,
  type OrderMessage,
  type ToWorker,
  WORKER_VARIABLE,
} from './messages.ts';
import type { Plan } from './plan.ts';

/** How long the last words of a process that has ended may take to be read. */
const LAST_WORDS_MS = 500;
/** How long a worker may take to say how much is in flight before it is counted without its word. */
const COUNT_MS = 250;
/** How long a worker may take to cut what it has. One that has not answered then is blocked. */
const CUT_MS = 500;
/** How long the emptying of its queue, or its quiet tail, may take a worker. One that has not answered then is blocked, and `close` ends it. */
const RELEASE_MS = 1_000;
/** What a worker may take to end, of what it is given to close; and once more when it was killed. */
const END_MS = 500;
/** One that was heard of so lately has told itself what it has in flight. */
const FRESH_MS = 250;
/** How long the disk may take to tell which answers are on record. */
const RECORDS_MS = 500;
/** What a worker that was still starting gets to end. */
const ABANDON_MS = 2_000;
/** How long the system may take to end a process that was killed. */
const REAP_MS = 2_000;

/** What a worker tells that concerns more than itself. */
export interface WorkerEvents {
  admin(request: AdminRequest): Promise<AdminAnswer>;
  auditLost(error: Error): void;
  crashed(worker: WorkerHandle): void;
  cut(requests: readonly CutRequest[]): void;
  /** The ids, of those that begin so, of requests that the audit log has as completed. */
  completed(idsBegin: string): Promise<ReadonlySet<string>>;
  /** A connection that the others have more room for. */
  passedOn(socket: Socket, by: WorkerHandle): void;
  /** Connections that were meant for it and have not reached it. */
  returned(sockets: readonly Socket[]): void;
  /** @param was its state until then */
  ended(worker: WorkerHandle, was: WorkerState): void;
}

/** How a worker's start ended when it did not end well. */
export interface StartFailure {
  readonly message: string;
  /** Undefined when the process ended without saying why. */
  readonly exitCode: ExitCode | undefined;
}

/**
 * `starting`, then `serving`. `leaving`: its part in the service is over, and nothing replaces it. `cut`: it was killed
 * by `cut`, which tells what it had in flight. `gone`: the process has ended.
 */
export type WorkerState = 'starting' | 'serving' | 'leaving' | 'cut' | 'gone';

/** A worker as the pool sees it: a process, what it last said, and calls to the backend in it. */
export class WorkerHandle {
  readonly generation: number;
  readonly #child: ChildProcess;
  readonly #events: WorkerEvents;
  readonly #ready = deferred<StartFailure | undefined>();
  readonly #ended = deferred<void>();
  readonly #calls = new Map<number, Deferred<unknown>>();
  #serial = 0;
  /** Handed over, and not taken yet; by number, the oldest first. */
  readonly #onTheirWay = new Map<number, Socket>();
  state: WorkerState = 'starting';
  /** Monotonic milliseconds of its last sign of life. */
  heardMs = performance.now();
  /** Monotonic milliseconds when it became ready. */
  readyMs: number | undefined;
  status: BackendStatus | undefined;
  closed: Closed | undefined;
  /** What it had in flight when it ended without having closed, and how many more are not known by name. */
  lost: { readonly requests: readonly CutRequest[]; readonly unnamed: number } = { requests: [], unnamed: 0 };
  /** The file in which it notes what it has in flight; what it held at the end of the process. */
  #flight: number | Flight;

  /** @throws the system's error when there can be no new process; some of those errors end the worker instead */
  constructor({ generation, config, variables, shares }: Plan, slot: number, events: WorkerEvents) {
    this.generation = generation;
    this.#events = events;
    const [main = ''] = process.argv.slice(1);
    const flight = openFlightFile(config.stateDir);
    this.#flight = flight;
    try {
      this.#child = fork(main, [], {
        env: { ...variables, [WORKER_VARIABLE]: String(slot) },
        stdio: ['ignore', 'inherit', 'inherit', 'ipc', flight, shares ?? 'ignore'],
      });
    } catch (error) {
      closeSync(flight);
      throw error;
    }
    const child = this.#child;
    const closed = new Promise<void>((resolve) => child.once('close', resolve));
    child.on('message', (message: FromWorker, handle: unknown) => this.#hear(message, handle));
    child.on('error', (error) => {
      // A channel that breaks is noticed by the exit. A process that never was has none.
      if (child.pid === undefined) void this.#end(`the worker could not be started: ${error.message}`);
    });
    child.once('exit', () => {
      this.#closeFlight();
      // What it said last may not be read yet: the exit and the channel are two sources of events. When the time is
      // over the loop reads once more all the same: in a process that stood still the timers fire first.
      void within(LAST_WORDS_MS, closed)
        .then(() => afterReading(0))
        .then(() => this.#end(`the worker ended ${this.end} before it was ready`));
    });
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

  get #hasServed(): boolean {
    return this.readyMs !== undefined;
  }

  /** Serving, as far as it has said. */
  get isReady(): boolean {
    return this.canTake && this.state === 'serving';
  }

  /** Whether a connection that is handed to it would be answered, if only with 503. */
  get canTake(): boolean {
    return this.readyMs !== undefined && this.alive && this.#child.connected;
  }

  /** Resolves to undefined when it serves, or to why it never will. */
  get ready(): Promise<StartFailure | undefined> {
    return this.#ready.promise;
  }

  /** Resolves when the process is gone and all it has said is read. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** What it has in flight, as it says itself, or as it has noted when it says nothing. */
  get inFlight(): OpenWork {
    if (this.status !== undefined && performance.now() - this.heardMs < FRESH_MS)
      return this.status.in_flight;
    const { requests, unnamed } = this.#noted;
    const holds = this.status?.in_flight.holds ?? [];
    return { count: requests.size + unnamed + holds.length, oldest: [...requests.values()], holds };
  }

  get #noted(): Flight {
    return typeof this.#flight === 'number' ? readFlight(this.#flight) : this.#flight;
  }

  /** Its last note is read once: the ages are those at its end. */
  #closeFlight(): void {
    if (typeof this.#flight !== 'number') return;
    const fd = this.#flight;
    this.#flight = readFlight(fd);
    closeSync(fd);
  }

  tell(message: ToWorker, handle?: SendHandle): void {
    if (this.#child.connected) this.#child.send(message, handle, {}, () => undefined);
  }

  /** Calls the worker's backend. Resolves to undefined when the worker is gone instead. */
  #call<N extends CallName>(
    name: N,
    argument: Calls[N]['argument'],
    handle?: SendHandle,
  ): Promise<Calls[N]['result'] | undefined> {
    if (!this.alive || !this.#child.connected) return Promise.resolve(undefined);
    this.#serial += 1;
    const answer = deferred<unknown>();
    this.#calls.set(this.#serial, answer);
    this.tell({ type: 'call', id: this.#serial, name, argument }, handle);
    // Whatever it answers is of the type that belongs to the name: both are one program.
    return answer.promise as Promise<Calls[N]['result'] | undefined>;
  }

  /** Resolves when what it has in flight and has counted is fresh, or it is gone. */
  async refresh(): Promise<void> {
    if (this.#hasServed) await this.#call('status', undefined);
  }

  /** Has it accept from a socket that is held here. @returns undefined when it is gone instead */
  listen(handle: SendHandle): Promise<Calls['listen']['result'] | undefined> {
    return this.#call('listen', undefined, handle);
  }

  /** Resolves when it takes no connection any more, or does not answer soon. */
  async stopAccepting(): Promise<void> {
    await within(COUNT_MS, this.#call('stopAccepting', undefined));
  }

  async retire(): Promise<void> {
    await this.#call('retire', undefined);
  }

  stopOrdered(order: StopOrder): void {
    this.tell({ type: 'stop ordered', order: messageOf(order) });
  }

  /** @returns what is in flight, as last heard of when it does not answer soon */
  async lock(order: StopOrder): Promise<OpenWork> {
    let work: OpenWork | undefined;
    const answered = this.#call('lock', messageOf(order)).then((inFlight) => {
      work = inFlight;
    });
    if (!this.#hasServed) return NOTHING;
    await within(COUNT_MS, answered);
    return work ?? (this.alive ? this.inFlight : NOTHING);
  }

  /** A worker that has not served yet has nothing in flight. */
  async drained(): Promise<void> {
    if (this.#hasServed) await this.#call('drained', undefined);
  }

  /** One that does not answer is blocked, and killed: what it had in flight it has noted. */
  async cut(reason: string): Promise<Cut & { readonly blocked: boolean }> {
    if (!this.#hasServed) return { requests: [], holds: [], unnamed: 0, blocked: false };
    let cut: Cut | undefined;
    const answered = this.#call('cut', reason).then((result) => {
      cut = result;
    });
    await within(CUT_MS, answered);
    if (cut !== undefined) return { ...cut, blocked: false };
    // What one had that has died by itself was told then.
    if (this.state === 'gone') return { requests: [], holds: [], unnamed: 0, blocked: false };
    this.state = 'cut';
    this.kill();
    await within(REAP_MS, this.ended);
    const requests = this.lost.requests.map((request) => ({ ...request, reason }));
    // What the application holds is in no note, so it is what was last heard of.
    const holds = (this.status?.in_flight.holds ?? []).map((hold) => ({ ...hold, reason }));
    const named = requests.length + holds.length;
    // What blocks it is at least one piece of work.
    const count = Math.max(named + this.lost.unnamed, this.status?.in_flight.count ?? 0, 1);
    return { requests, holds, unnamed: count - named, blocked: true };
  }

  async closeQueue(): Promise<void> {
    if (this.#hasServed) await within(RELEASE_MS, this.#call('closeQueue', undefined));
  }

  async release(): Promise<number> {
    if (!this.#hasServed) return 0;
    let inFlight = 0;
    const answered = this.#call('release', undefined).then((count = 0) => {
      inFlight = count;
    });
    await within(RELEASE_MS, answered);
    return inFlight;
  }

  /** @returns whether it has left by itself */
  async close(given: CloseLimits): Promise<boolean> {
    // A start that does not settle is not waited for any longer than one in this process would be.
    const { drained } = given;
    const { stopMs, closeMs } = this.#hasServed ? given : { stopMs: ABANDON_MS, closeMs: ABANDON_MS };
    void this.#call('close', { drained, stopMs, closeMs: closeMs - END_MS }).then((closed) => {
      this.closed = closed;
    });
    if (await within(closeMs, this.ended)) return true;
    this.kill();
    // One that waits for a disk is not gone before the disk answers.
    await within(END_MS, this.ended);
    return false;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /**
   * Hands over a connection. It is kept open here too until the worker has said that it has taken it: of one that
   * ends before that, blocked or killed, it comes back and goes to another worker.
   */
  hand(socket: Socket): void {
    this.#serial += 1;
    const number = this.#serial;
    this.#onTheirWay.set(number, socket);
    const message: ToWorker = { type: 'connection', number };
    this.#child.send(message, socket, { keepOpen: true }, (error) => {
      if (error !== null && this.#onTheirWay.delete(number)) this.#events.returned([socket]);
    });
  }

  #hear(message: FromWorker, handle: unknown): void {
    this.heardMs = performance.now();
    switch (message.type) {
      case 'ready':
        this.readyMs = performance.now();
        if (this.state === 'starting') this.state = 'serving';
        this.#ready.resolve(undefined);
        return;
      case 'failed':
        this.#ready.resolve({ message: message.message, exitCode: message.exitCode });
        return;
      case 'beat':
        this.status = message.status;
        return;
      case 'passed on':
        // It may have been closed while it was on its way.
        if (handle instanceof Socket) this.#events.passedOn(unread(handle), this);
        return;
      case 'taken':
        this.#taken(message.number);
        return;
      case 'result':
        this.status = message.status;
        this.#calls.get(message.id)?.resolve(message.result);
        this.#calls.delete(message.id);
        return;
      case 'admin': {
        const { id, request } = message;
        void this.#events.admin(request).then((answer) => this.tell({ type: 'admin answer', id, answer }));
        return;
      }
      case 'cut':
        this.#events.cut(message.requests);
        return;
      case 'crashed':
        this.#events.crashed(this);
        return;
      case 'audit lost':
        this.#events.auditLost(new Error(message.message));
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

  async #end(why: string): Promise<void> {
    const was = this.state;
    if (was === 'gone') return;
    this.#closeFlight();
    this.state = 'gone';
    this.#ready.resolve({ message: why, exitCode: undefined });
    for (const call of this.#calls.values()) call.resolve(undefined);
    this.#calls.clear();
    const untaken = [...this.#onTheirWay.values()];
    this.#onTheirWay.clear();
    if (this.closed === undefined && this.readyMs !== undefined) {
      this.lost = await this.#cutShort(`worker ${this.pid} ended ${this.end}`);
    }
    this.#ended.resolve();
    this.#events.ended(this, was);
    if (untaken.length > 0) this.#events.returned(untaken);
  }

  /** What its end has cut, which is not what the audit log has as completed. */
  async #cutShort(reason: string): Promise<WorkerHandle['lost']> {
    const { requests, unnamed } = this.#noted;
    const [first] = requests.keys();
    let completed: ReadonlySet<string> = new Set();
    if (first !== undefined) {
      const reading = this.#events.completed(first.slice(0, first.indexOf('-') + 1)).then((ids) => {
        completed = ids;
      });
      await within(RECORDS_MS, reading).catch(() => undefined);
    }
    const cut = [...requests].filter(([ownId]) => !completed.has(ownId));
    return { requests: cut.map(([, request]) => ({ ...request, reason })), unnamed };
  }
}

function messageOf({ reason, orderedAt, lockAtMs, deadlineMs }: StopOrder): OrderMessage {
  const nowMs = performance.now();
  return {
    reason,
    orderedAtMs: orderedAt.getTime(),
    lockInMs: lockAtMs - nowMs,
    deadlineInMs: deadlineMs - nowMs,
  };
}

const NOTHING: OpenWork = { count: 0, oldest: [], holds: [] };

/** What a worker that has ended without having closed has come to. */
export const UNCLOSED: Closed = {
  completed: 0,
  aborted: 0,
  closed: 0,
  refused: 0,
  cut: [],
  exitCode: ExitCode.Forced,
};
