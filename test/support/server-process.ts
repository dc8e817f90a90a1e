import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { Readable } from 'node:stream';
import { ROOT } from './root.ts';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Monotonic milliseconds. */
  readonly atMs: number;
}

/** A measured server: a process of its own, run by plain node, on a port of 127.0.0.1 that was free. */
export class ServerProcess {
  readonly name: string;
  readonly exited: Promise<Exit>;
  /** What it has logged, or printed as an error. */
  readonly lines: string[] = [];
  port = 0;
  /** Our ops server; 0 for a server that has none. */
  opsPort = 0;
  readonly #child: ChildProcess;
  readonly #output: Interface;

  private constructor(name: string, args: readonly string[], env: Readonly<Record<string, string>>) {
    this.name = name;
    this.#child = spawn(process.execPath, args, {
      cwd: ROOT,
      env: { ...process.env, NODE_ENV: 'production', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#output = createInterface({ input: this.#child.stdout as Readable });
    const errors = createInterface({ input: this.#child.stderr as Readable });
    for (const output of [this.#output, errors]) output.on('line', (line) => this.lines.push(line));
    this.exited = new Promise((resolve) => {
      this.#child.once('exit', (code, signal) => resolve({ code, signal, atMs: performance.now() }));
    });
  }

  /** Starts a server that a file of `bench/servers` makes. */
  static peer(
    name: string,
    file: string,
    env: Readonly<Record<string, string>> = {},
  ): Promise<ServerProcess> {
    return new ServerProcess(name, [join(ROOT, 'bench/servers/listen.mjs'), file], env).#ready();
  }

  /** Starts our service from `dist`, with its ops server open and its log on, around an application. */
  static async ours(app: string, env: Readonly<Record<string, string>> = {}): Promise<ServerProcess> {
    const stateDir = mkdtempSync(join(tmpdir(), 'master-agent-bench-'));
    const server = new ServerProcess('master-agent', [join(ROOT, 'dist/main.js'), join(ROOT, app)], {
      ...{ HOST: '127.0.0.1', PORT: '0', OPS_PORT: '0', LOG_LEVEL: 'info', LOG_FORMAT: 'json' },
      ...{ STATE_DIR: stateDir, ...env },
    });
    const cleanUp = (): void => rmSync(stateDir, { recursive: true, force: true });
    void server.exited.then(cleanUp);
    return server.#ready();
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** CPU time of all its threads so far, in seconds: the scheduler's own count, in ns, not the clock ticks of `stat`. */
  get cpuSeconds(): number {
    return cpuSecondsOf(this.pid);
  }

  /** The same, with that of the processes it has started. */
  get cpuSecondsOfAll(): number {
    const children = readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'latin1').trim();
    const all = children === '' ? [] : children.split(' ').map(Number);
    return all.reduce((sum, pid) => sum + cpuSecondsOf(pid), this.cpuSeconds);
  }

  /** Resolves when it has logged a line that contains `text`. @throws Error when it ends without */
  async line(text: string): Promise<void> {
    while (!this.lines.some((line) => line.includes(text))) {
      await Promise.race([once(this.#output, 'line'), this.#unexpectedEnd(`it logged "${text}"`)]);
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Ends it without ceremony. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exited;
  }

  async #ready(): Promise<ServerProcess> {
    await this.line('Accepting requests on http');
    this.port = this.#portOf('Accepting requests on http');
    this.opsPort = this.#portOf('Ops server listening on');
    return this;
  }

  #portOf(text: string): number {
    const line = this.lines.find((line) => line.includes(text)) ?? '';
    return Number(/http:\/\/[^:]+:(\d+)/.exec(line)?.[1] ?? 0);
  }

  async #unexpectedEnd(before: string): Promise<never> {
    const { code } = await this.exited;
    throw new Error(`${this.name} ended with ${code} before ${before}:\n${this.lines.join('\n')}`);
  }
}

function cpuSecondsOf(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  const nanos = readdirSync(tasks).map((task) =>
    Number(readFileSync(`${tasks}/${task}/schedstat`, 'latin1').split(' ', 1)[0]),
  );
  return nanos.reduce((sum, one) => sum + one, 0) / 1e9;
}
