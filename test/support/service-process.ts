import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import root, { type Test } from 'tap';
import type { ShutdownReport } from '../../src/lifecycle/last-shutdown.ts';
import type { Status } from '../../src/ops/status.ts';
import { ROOT } from './root.ts';

/** What is shipped: `npm test` builds it first. */
export const MAIN = join(ROOT, 'dist/main.js');

/** What .taprc grants, also under node's runner: machines are slow, and a test that waits for a state waits for it. */
const LIMIT_MS = 120_000;
root.setTimeout(LIMIT_MS);

/** Between two looks at what tells nobody that it has changed: without it the looking takes the processor from it. */
export const POLL_MS = 10;

/** The application most tests run: its handlers wait until the test lets them go, never for a time. */
export const TEST_APP = join(ROOT, 'test/fixtures/app.mjs');

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface SpawnOptions {
  /** Arguments behind `main`; default: the test application. */
  readonly args?: readonly string[];
  /** For node, in front of `main`. */
  readonly nodeArgs?: readonly string[];
  /** Undefined: not set at all, so that a `.env` can set it. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Default: a directory of its own, removed at the end. */
  readonly stateDir?: string;
  readonly cwd?: string;
}

/** A directory that goes with the test. */
export function tempDir(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'master-agent-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** A real process of the service, or of one of its commands. Ended at the end of the test, by its pid. */
export class ServiceProcess {
  readonly child: ChildProcess;
  readonly stateDir: string;
  /** Every line on standard output and standard error, in the order of their arrival. */
  readonly lines: string[] = [];
  readonly exited: Promise<Exit>;
  port = 0;
  opsPort = 0;
  readonly #waiting = new Set<() => void>();

  private constructor(
    t: Test,
    { args = [TEST_APP], nodeArgs = [], env = {}, stateDir = tempDir(t), cwd = ROOT }: SpawnOptions,
  ) {
    t.setTimeout(LIMIT_MS);
    this.stateDir = stateDir;
    // Nothing of what the tests themselves need: a child is what users run.
    this.child = spawn(process.execPath, [...nodeArgs, MAIN, ...args], {
      cwd,
      env: {
        ...process.env,
        HOST: '127.0.0.1',
        PORT: '0',
        OPS_PORT: '0',
        LOG_FORMAT: 'text',
        STATE_DIR: stateDir,
        ...env,
      },
      // The channel lets a test release a handler when no request gets in any more.
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      if (stream !== null) createInterface({ input: stream }).on('line', (line) => this.#heard(line));
    }
    this.exited = new Promise((done) => {
      this.child.once('close', (code, signal) => {
        done({ code, signal });
        this.#wake();
      });
    });
    t.teardown(async () => {
      this.child.kill('SIGKILL');
      await this.exited;
    });
  }

  /** Starts one and comes back at once. */
  static spawn(t: Test, options: SpawnOptions = {}): ServiceProcess {
    return new ServiceProcess(t, options);
  }

  /** Starts one and comes back when it accepts requests. */
  static async running(t: Test, options: SpawnOptions = {}): Promise<ServiceProcess> {
    const service = new ServiceProcess(t, options);
    await service.accepting();
    return service;
  }

  /** Comes back when it accepts requests. */
  async accepting(): Promise<void> {
    const line = await this.line('Service state: RUNNING');
    this.port = Number(/:(\d+)$/.exec(line.replace(/".*$/, ''))?.[1]);
    const door = this.lines.find((text) => text.includes('Ops server listening'));
    this.opsPort = Number(/:(\d+)\D*$/.exec(door ?? '')?.[1]);
  }

  get pid(): number {
    return this.child.pid as number;
  }

  get output(): string {
    return this.lines.join('\n');
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Sends the signal and comes back when the service is locked. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.signal(signal);
    await this.line('Service state: STOPPING');
  }

  /** Lets the handler that waits under this name go on. */
  release(name: string): void {
    this.child.send({ release: name });
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
        throw new Error(
          `the process ended (${this.child.exitCode ?? this.child.signalCode}) before ${what}:\n${this.output}`,
        );
      }
      await new Promise<void>((wake) => this.#waiting.add(wake));
    }
  }

  /** Asks the ops server. */
  async operator(path: string, init?: RequestInit): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.opsPort}${path}`, init);
  }

  /** Asks the ops server for the status until it is as the test waits for it. */
  async statusWhen(wanted: (status: Status) => boolean): Promise<Status> {
    for (;;) {
      const status = (await (await this.operator('/status')).json()) as Status;
      if (wanted(status)) return status;
      await delay(POLL_MS);
    }
  }

  /** What the end of the stop left behind, for the next start to show. */
  report(): ShutdownReport {
    return JSON.parse(readFileSync(join(this.stateDir, 'last-shutdown.json'), 'utf8'));
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
