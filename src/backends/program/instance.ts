import { spawn } from 'node:child_process';
import { Agent, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Pool } from 'undici';
import { hasCode, messageOf } from '../../error.ts';
import { afterReading, within } from '../../platform/deadline.ts';
import { deferred } from '../../platform/deferred.ts';
import type { Address, Launch } from './launch.ts';
import { passOnLines } from './output.ts';

/**
 * Starts the program in our place, as the leader of a process group, and beside it in the group a watcher that reads from
 * a pipe which this process holds: its end means that this process has died, however it did, and the watcher ends the
 * group. As long as the watcher lives the system gives the group's id to nobody else, and it lives until the group is
 * killed. It is no child of the program, which may wait for any child.
 */
const START = `( ( trap '' TERM INT HUP; exec >/dev/null 2>&1; read -r _ <&3; kill -TERM 0
for _ in 1 2 3 4 5; do sleep 1; kill -0 $$ || break; done; kill -KILL 0 ) & )
exec 3<&- "$@"`;

/** How often a program that starts is asked whether it is ready: nobody tells us. */
const ASK_MS = 50;
/** A single answer that takes longer is none. */
const ANSWER_MS = 5_000;
/** How long a listening queue that is full may stay so. */
const FULL_QUEUE_MS = 10_000;
/** Idle connections to an instance; more are closed. */
const MOST_IDLE = 256;

/** Of an answer. */
const MOST_HEADER_BYTES = 64 * 1024;

/** `serving`: it is given requests. `leaving`: it finishes those it has. `ended`: the process is gone. */
export type InstanceState = 'starting' | 'serving' | 'leaving' | 'ended';

export interface InstanceParts {
  readonly launch: Launch;
  readonly generation: number;
  /** Takes a line that it has written. */
  readonly write: (line: string, fd: 1 | 2, instance: Instance) => void;
  /** @param was its state until then */
  readonly ended: (instance: Instance, was: InstanceState) => void;
}

/** One process of the guarded program, with its process group. */
export class Instance {
  readonly name: string;
  readonly generation: number;
  readonly address: Address;
  /** Of its process group; 0 when there is none. */
  readonly pid: number;
  /** Somebody else runs it: all that we can do is to leave it alone. */
  readonly isElsewhere: boolean;
  /** Each keeps connections to it. */
  readonly pool: Pool;
  readonly agent: Agent;
  state: InstanceState = 'starting';
  /** Monotonic milliseconds. */
  readonly startedMs = performance.now();
  /** Monotonic milliseconds at which it was ready. */
  readyMs: number | undefined;
  /** How it has ended, in words that follow "ended": `with 1`, `by SIGKILL`. */
  end = '';
  /** Health checks it has failed in a row. */
  failures = 0;
  /** Whether its end is our doing. */
  isTold = false;
  inFlight = 0;
  /** Signals its process group, if there is one. */
  readonly #signal: (signal: NodeJS.Signals) => void;
  readonly #ended = deferred<void>();
  #emptied: (() => void) | undefined;

  /** @throws the system's error when there can be no more processes */
  constructor({ launch, generation, write, ended }: InstanceParts) {
    const { name, words, env, address } = launch;
    this.name = name;
    this.generation = generation;
    this.address = address;
    this.pool = poolOf(address);
    this.agent = agentOf(address);
    const over = (end: string): void => {
      const was = this.state;
      if (was === 'ended') return;
      this.end = end;
      // The rest of its group: what it has forked, and the watcher.
      this.#signal('SIGKILL');
      this.state = 'ended';
      this.#closeConnections();
      this.#ended.resolve();
      ended(this, was);
    };
    this.isElsewhere = words.length === 0;
    if (this.isElsewhere) {
      this.pid = 0;
      this.#signal = () => setImmediate(over, 'for us');
      return;
    }
    const child = spawn('/bin/sh', ['-c', START, 'sh', ...words], {
      env,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    });
    this.pid = child.pid ?? 0;
    if (child.stdout !== null) passOnLines(child.stdout, (line) => write(line, 1, this));
    if (child.stderr !== null) passOnLines(child.stderr, (line) => write(line, 2, this));
    // It ends with the last process that holds the other end, which is the watcher.
    let isWatched = true;
    const watched = child.stdio[3] as Duplex;
    watched
      .on('error', () => undefined)
      .on('close', () => {
        isWatched = false;
      });
    watched.resume();
    this.#signal = (signal) => {
      // With neither, the group's id may be that of another group.
      const exists = (child.exitCode === null && child.signalCode === null) || isWatched;
      if (this.pid !== 0 && this.state !== 'ended' && exists) signalGroup(this.pid, signal);
    };
    child.once('exit', (code, signal) => over(signal === null ? `with ${code}` : `by ${signal}`));
    child.once('error', (error) => over(`before it began: ${messageOf(error)}`));
  }

  /** Names it in the log. */
  get label(): string {
    return this.isElsewhere ? `at ${this.#where}` : `${this.name} (pid ${this.pid})`;
  }

  /** Resolves when the process is gone. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Counts a request that it is given. @returns counts its end, once */
  enter(): () => void {
    this.inFlight += 1;
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      this.inFlight -= 1;
      if (this.inFlight === 0) this.#emptied?.();
    };
  }

  /** Resolves when it has no request, or is gone. It must have got its last one before. */
  drained(): Promise<void> {
    if (this.inFlight === 0) return Promise.resolve();
    const emptied = new Promise<void>((resolve) => {
      this.#emptied = resolve;
    });
    return Promise.race([emptied, this.ended]);
  }

  /**
   * Asks until it is ready.
   * @param path where it answers below 500; undefined: it accepts a connection
   * @returns why it is not, in words that follow its name; undefined when it is
   */
  async ready(path: string | undefined, timeoutMs: number): Promise<string | undefined> {
    const endMs = performance.now() + timeoutMs;
    let answer = 'no connection';
    while (this.state !== 'ended' && performance.now() < endMs) {
      const asked = await this.ask(path, Math.min(ANSWER_MS, endMs - performance.now()));
      if (asked === undefined) {
        this.readyMs = performance.now();
        return undefined;
      }
      answer = asked;
      await within(ASK_MS, this.ended);
    }
    if (this.state === 'ended') {
      const advice = this.end === 'with 0' ? ': it must stay in the foreground' : '';
      return `ended ${this.end} before it was ready${advice}`;
    }
    return `was not ready after ${timeoutMs / 1000}s (START_TIMEOUT): ${answer} at ${this.#place(path)}`;
  }

  #place(path: string | undefined): string {
    return path === undefined ? this.#where : `${path} of ${this.#where} (GUARD_READY)`;
  }

  get #where(): string {
    return 'path' in this.address ? 'its socket' : `${this.address.host}:${this.address.port}`;
  }

  /** @returns what is wrong with its answer; undefined for nothing */
  ask(path: string | undefined, timeoutMs: number): Promise<string | undefined> {
    return new Promise((resolve) => {
      const signal = AbortSignal.timeout(Math.max(1, Math.ceil(timeoutMs)));
      const failed = (error: unknown): void =>
        resolve(
          signal.aborted
            ? 'no answer'
            : hasCode(error, 'ECONNREFUSED', 'ENOENT')
              ? 'no connection'
              : messageOf(error),
        );
      if (path === undefined) {
        const socket = connect({ ...this.address, signal }, () => {
          socket.destroy();
          resolve(undefined);
        }).on('error', failed);
        return;
      }
      const headers = { Host: 'localhost', 'User-Agent': 'master-agent-guard' };
      // Not on a kept connection: whether it accepts a new one is a part of the question.
      request({ ...optionsOf(this.address), path, headers, agent: false, signal }, (answer) => {
        answer.resume().on('error', failed);
        const { statusCode = 0 } = answer;
        resolve(statusCode < 500 ? undefined : `status ${statusCode}`);
      })
        .on('error', failed)
        .end();
    });
  }

  /** It gets no more requests. */
  terminate(): void {
    this.isTold = true;
    // Some programs wait for idle connections, Go's net/http 5 s for one that was never used.
    if (this.inFlight === 0) this.#closeConnections();
    this.#signal('SIGTERM');
  }

  #closeConnections(): void {
    this.agent.destroy();
    void this.pool.destroy();
  }

  /** Ends all of its group at once. */
  kill(): void {
    this.isTold = true;
    this.#signal('SIGKILL');
  }
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if (!hasCode(error, 'ESRCH', 'EPERM')) throw error;
  }
}

/** Of `http.request`. */
export function optionsOf(address: Address): { socketPath: string } | { host: string; port: number } {
  return 'path' in address ? { socketPath: address.path } : address;
}

/** No time-outs: a report may take as long as its client waits. */
function poolOf(address: Address): Pool {
  return new Pool('http://localhost', {
    ...{ headersTimeout: 0, bodyTimeout: 0, maxHeaderSize: MOST_HEADER_BYTES },
    connect: (_options, done) =>
      void open(address).then(
        (socket) => done(null, socket),
        (error) => done(error, null),
      ),
  });
}

function agentOf(address: Address): Agent {
  const agent = new Agent({ keepAlive: true, maxFreeSockets: MOST_IDLE });
  agent.createConnection = (_options, done) => {
    void open(address).then(
      (socket) => done?.(null, readsOn(socket).on('end', dropAtEnd)),
      (error) => done?.(error, undefined as never),
    );
    return undefined;
  };
  return agent;
}

/**
 * A program may answer a request that it has not read, and close. node:net would destroy the socket at the first write
 * that fails, with the answer in it; so it is read on, until its end tells whether there was one.
 */
function readsOn(socket: Socket): Socket {
  const { _write, _writev } = socket;
  type Done = (error?: Error | null) => void;
  const unless =
    (done: Done): Done =>
    (error) =>
      done(hasCode(error, 'EPIPE', 'ECONNRESET') ? null : error);
  socket._write = (chunk, encoding, done) => _write.call(socket, chunk, encoding, unless(done));
  socket._writev = (chunks, done) => _writev?.call(socket, chunks, unless(done));
  return socket;
}

/** The program has closed it: it must not be found among the idle ones until the system has told so, too. */
export function dropAtEnd(this: Socket): void {
  this.destroy();
}

/** A Unix socket whose queue is full refuses at once, where TCP would wait. */
async function open(address: Address): Promise<Socket> {
  const endMs = performance.now() + FULL_QUEUE_MS;
  for (;;) {
    const socket = connect(address);
    try {
      await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
      return socket;
    } catch (error) {
      if (!hasCode(error, 'EAGAIN') || performance.now() > endMs) throw error;
      await afterReading(ASK_MS / 10);
    }
  }
}
