import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Stream } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { Status } from '../../src/ops/status.ts';
import { sum } from './figures.ts';
import { residentBytes } from './resident.ts';
import { ROOT } from './root.ts';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ProcessOptions {
  /** Undefined: not set at all. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Whether it leads a process group, which is then signalled and ended as a whole. */
  readonly group?: boolean;
  /** What it is given beside its output: a channel for messages, or a socket. */
  readonly third?: 'ignore' | 'ipc' | Stream;
}

/** What is shipped. */
export const MAIN = join(ROOT, 'dist/main.js');

/** Between two looks at what tells nobody that it has changed: without it the looking takes the processor from it. */
export const POLL_MS = 10;
const STATUS_MS = 120_000;

/** Whatever becomes of this process, it leaves none behind. */
const running = new Set<ServerProcess>();
process.on('exit', () => {
  for (const one of running) one.signalAll('SIGKILL');
});

/** A server, or one of our commands, in a process of its own, with what it prints. Its port is one of 127.0.0.1. */
export class ServerProcess {
  readonly name: string;
  readonly child: ChildProcess;
  /** Every line on standard output and standard error, in the order of their arrival. */
  readonly lines: string[] = [];
  /** Resolves when it has ended and all it has printed is there. */
  readonly exited: Promise<Exit>;
  /** Resolves when it has ended; what it has started may still be there. */
  readonly left: Promise<Exit>;
  /** When that was; monotonic milliseconds. */
  leftMs = Number.NaN;
  port = 0;
  /** Our ops server; 0 for a server that has none. */
  opsPort = 0;
  readonly #group: boolean;
  readonly #waiting = new Set<() => void>();

  protected constructor(
    command: string,
    args: readonly string[],
    { env = {}, cwd = ROOT, group = false, third = 'ignore' }: ProcessOptions,
    name = command,
  ) {
    this.name = name;
    this.#group = group;
    this.child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe', third],
      detached: group,
    });
    running.add(this);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      if (stream !== null) createInterface({ input: stream }).on('line', (line) => this.#heard(line));
    }
    this.left = new Promise((done) => {
      this.child.once('exit', (code, signal) => {
        this.leftMs = performance.now();
        done({ code, signal });
      });
    });
    this.exited = new Promise((done) => {
      this.child.once('close', (code, signal) => {
        // Of a group there may be others.
        if (!group) running.delete(this);
        done({ code, signal });
        this.#wake();
      });
    });
  }

  /** Starts a program and comes back when it accepts requests. */
  static async serving(
    command: string,
    args: readonly string[],
    options: ProcessOptions,
    name = command,
  ): Promise<ServerProcess> {
    const server = new ServerProcess(command, args, options, name);
    await server.accepting();
    return server;
  }

  /** Starts a server that a file of `bench/servers` makes. */
  static peer(
    name: string,
    file: string,
    env: Readonly<Record<string, string>> = {},
  ): Promise<ServerProcess> {
    const args = [join(ROOT, 'bench/servers/listen.mjs'), file];
    return ServerProcess.serving(process.execPath, args, { env: { NODE_ENV: 'production', ...env } }, name);
  }

  /**
   * Starts our service from `dist`, with its ops server open and its log on, around an application, or with `guard`, in
   * front of the program in GUARD_COMMAND.
   */
  static async ours(
    app: string,
    env: Readonly<Record<string, string>> = {},
    name = 'master-agent',
  ): Promise<ServerProcess> {
    const stateDir = mkdtempSync(join(tmpdir(), 'master-agent-bench-'));
    const settings = {
      ...{ NODE_ENV: 'production', HOST: '127.0.0.1', PORT: '0', OPS_PORT: '0' },
      ...{ LOG_LEVEL: 'info', LOG_FORMAT: 'json', STATE_DIR: stateDir },
    };
    const args = [MAIN, app === 'guard' ? app : join(ROOT, app)];
    const options = { env: { ...settings, ...env } };
    const server = await ServerProcess.serving(process.execPath, args, options, name);
    void server.exited.then(() => rmSync(stateDir, { recursive: true, force: true }));
    return server;
  }

  get pid(): number {
    return this.child.pid as number;
  }

  get output(): string {
    return this.lines.join('\n');
  }

  /** CPU time of all its threads so far, in seconds: the scheduler's own count, in ns, not the clock ticks of `stat`. */
  get cpuSeconds(): number {
    return cpuSecondsOf(this.pid);
  }

  /** The same, with that of the processes it has started. */
  get cpuSecondsOfAll(): number {
    return sum(this.#all.map(cpuSecondsOf));
  }

  get residentBytesOfAll(): number {
    return sum(this.#all.map(residentBytes));
  }

  get #all(): number[] {
    const children = readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'latin1').trim();
    return [this.pid, ...(children === '' ? [] : children.split(' ').map(Number))];
  }

  /** Comes back when it has said that it accepts requests, and where. */
  async accepting(): Promise<void> {
    const portIn = (line = ''): number => Number(/ http:\/\/\S*:(\d+)/.exec(line)?.[1] ?? 0);
    this.port = portIn(await this.line('Accepting requests on http'));
    this.opsPort = portIn(this.lines.find((line) => line.includes('Ops server listening on')));
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Signals it and, where it leads a group, all that it has started. */
  signalAll(signal: NodeJS.Signals): void {
    try {
      if (this.child.pid !== undefined) process.kill(this.#group ? -this.pid : this.pid, signal);
    } catch {
      // The last of them is gone already.
    }
  }

  /** Ends it without ceremony. */
  async kill(): Promise<void> {
    running.delete(this);
    // A process that was waited for may have left its number to another one.
    if (this.#group || (this.child.exitCode === null && this.child.signalCode === null))
      this.signalAll('SIGKILL');
    await this.exited;
  }

  /** The first line that contains `text`, also one that has already come. @throws when the process ends without it */
  line(text: string): Promise<string> {
    return this.until(() => this.lines.find((line) => line.includes(text)), `the line "${text}"`);
  }

  /** Waits for something that a line or the end of the process brings about. */
  async until<T>(look: () => T | undefined, what: string): Promise<T> {
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      if (this.child.exitCode !== null || this.child.signalCode !== null) {
        await this.exited;
        const late = look();
        if (late !== undefined) return late;
        const how = this.child.exitCode ?? this.child.signalCode;
        throw new Error(`${this.name} ended (${how}) before ${what}:\n${this.output}`);
      }
      await new Promise<void>((wake) => this.#waiting.add(wake));
    }
  }

  /** Asks the ops server. */
  async operator(path: string, init?: RequestInit): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.opsPort}${path}`, init);
  }

  /** Asks the ops server for the status until it is as the caller waits for it. @throws when that takes too long */
  async statusWhen(wanted: (status: Status) => boolean): Promise<Status> {
    const untilMs = performance.now() + STATUS_MS;
    for (;;) {
      const status = (await (await this.operator('/status')).json()) as Status;
      if (wanted(status)) return status;
      if (performance.now() > untilMs) throw new Error(`still not so: ${JSON.stringify(status)}`);
      await delay(POLL_MS);
    }
  }

  #heard(line: string): void {
    this.lines.push(line);
    this.#wake();
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }
}

function cpuSecondsOf(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  const nanos = readdirSync(tasks).map((task) =>
    Number(readFileSync(`${tasks}/${task}/schedstat`, 'latin1').split(' ', 1)[0]),
  );
  return nanos.reduce((sum, one) => sum + one, 0) / 1e9;
}
