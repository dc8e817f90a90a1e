import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { within } from '../../src/platform/deadline.ts';
import { type Outcome, RawClient } from '../support/raw-client.ts';
import { type Exit, ServerProcess } from '../support/server-process.ts';

/** How it has ended, and when; monotonic milliseconds. */
export interface TimedExit extends Exit {
  readonly atMs: number;
}

/** The scenario could not be played: nothing is said about the server's shutdown. */
export class CannotRun extends Error {}

/** How long a server may take to answer its first request. */
export const START_MS = 20_000;
/** How long a stop may take where the scenario is not about the deadline, in seconds. */
const AMPLE_TIMEOUT = 20;
/** How long we wait for a sign that the server has begun to stop. One that shows none just serves on. */
const LOCK_MS = 1_500;
const PROBE_MS = 500;
const SAID_MS = 1_000;
const HELD_BYTES = 10_000;
/** Servers may cut an upload that stands still; a held one therefore moves. */
const TRICKLE_MS = 250;
/** Below the range from which systems take the ports of outgoing connections. */
const FIRST_PORT = 20_000;
const LAST_PORT = 32_000;

const scratches = new Set<string>();
process.on('exit', () => {
  for (const scratch of scratches) rmSync(scratch, { recursive: true, force: true });
});

/** The server under test: any command, in a process group of its own, told to listen on a port of 127.0.0.1. */
export class Subject extends ServerProcess {
  /** When the first signal was sent; monotonic milliseconds. */
  signalledMs = Number.NaN;
  readonly #scratch: string;
  readonly #clients: RawClient[] = [];

  private constructor(command: string, port: number, env: Readonly<Record<string, string>>) {
    const scratch = mkdtempSync(join(tmpdir(), 'conformance-'));
    scratches.add(scratch);
    const variables = { PORT: String(port), SHUTDOWN_TIMEOUT: String(AMPLE_TIMEOUT), SCRATCH: scratch };
    // `exec env`: the command may begin with settings, and its process is the one that gets the signals.
    super('sh', ['-c', `exec env ${command}`], {
      ...{ env: { ...variables, ...env }, cwd: process.cwd(), group: true },
    });
    this.port = port;
    this.#scratch = scratch;
  }

  /** Starts the command, and does not wait for it to serve. */
  static async spawn(
    command: string,
    env: Readonly<Record<string, string>> = {},
    port?: number,
  ): Promise<Subject> {
    return new Subject(command, port ?? (await freePort()), env);
  }

  /** Starts the command and waits until it has answered a request. @throws CannotRun when it does not */
  static async answering(command: string, env: Readonly<Record<string, string>> = {}): Promise<Subject> {
    const subject = await Subject.spawn(command, env);
    try {
      await subject.accepting();
      const { status } = await subject.ask('/', START_MS);
      if (status !== 200)
        throw new CannotRun(`GET / must be answered with 200, got ${status ?? 'no answer'}`);
      return subject;
    } catch (error) {
      await subject.dispose();
      throw error;
    }
  }

  /** Resolves at the first connection that it accepts. @throws CannotRun when that is not to be */
  override async accepting(): Promise<void> {
    const endMs = performance.now() + START_MS;
    while (performance.now() < endMs && Number.isNaN(this.leftMs)) {
      const wire = await this.open();
      wire.destroy();
      if (wire.isConnected) return;
      await delay(10);
    }
    // What it printed last may still be on its way through the pipe.
    await within(SAID_MS, this.exited);
    const said = this.output.trim().split('\n').at(-1) || 'nothing';
    const { exitCode, signalCode } = this.child;
    throw new CannotRun(
      Number.isNaN(this.leftMs)
        ? `the server does not listen on PORT within ${START_MS / 1000} s; it printed: ${said}`
        : `the server ended with ${exitCode ?? signalCode} before it listened on PORT; it printed: ${said}`,
    );
  }

  /** A new connection; when it is refused, the wire says so. */
  open(): Promise<RawClient> {
    return this.begin().connected();
  }

  /** A connection that is under way. */
  begin(): RawClient {
    const wire = new RawClient(this.port, { halfOpen: false });
    this.#clients.push(wire);
    return wire;
  }

  openMany(count: number): Promise<RawClient[]> {
    return Promise.all(Array.from({ length: count }, () => this.open()));
  }

  /** So many connections that were used once and are kept alive. */
  async idle(count: number): Promise<RawClient[]> {
    const wires = await this.openMany(count);
    const answers = await Promise.all(wires.map((wire) => wire.get('/').answer()));
    const wrong = answers.find(({ status }) => status !== 200);
    if (wrong !== undefined) throw new CannotRun('a request before the signal was not answered with 200');
    return wires;
  }

  /** One request on a connection of its own. */
  async ask(path: string, ms = PROBE_MS): Promise<Outcome> {
    const wire = await this.open();
    const answer = await wire.get(path).answer({ ms });
    wire.destroy();
    return answer;
  }

  /**
   * Resolves when the server has read what was written before: it has answered requests that were sent after that,
   * on connections that were opened after that.
   */
  async settled(): Promise<void> {
    for (let round = 0; round < 2; round += 1) {
      const { status } = await this.ask('/', START_MS);
      if (status !== 200) throw new CannotRun('a request before the signal was not answered with 200');
      await delay(10);
    }
  }

  /** An upload in flight that does not end before we say so. */
  async hold(): Promise<Held> {
    const held = new Held(await this.open());
    await this.settled();
    return held;
  }

  override signal(signal: NodeJS.Signals): void {
    if (Number.isNaN(this.signalledMs)) this.signalledMs = performance.now();
    super.signal(signal);
  }

  /** Signals, and waits until new connections show that the stop has begun, or show for a while that they do not. */
  async stopping(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.signal(signal);
    while (performance.now() - this.signalledMs < LOCK_MS && Number.isNaN(this.leftMs)) {
      if ((await this.ask('/')).status !== 200) return;
      await delay(10);
    }
  }

  /** Stops its processes where they are: what is sent now, they will find all at once. */
  freeze(): void {
    this.signalAll('SIGSTOP');
  }

  thaw(): void {
    this.signalAll('SIGCONT');
  }

  /** Its exit, or undefined when it is still there after `ms`. */
  async exit(ms: number): Promise<TimedExit | undefined> {
    return (await within(ms, this.left)) ? { ...(await this.left), atMs: this.leftMs } : undefined;
  }

  async dispose(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    await this.kill();
    rmSync(this.#scratch, { recursive: true, force: true });
    scratches.delete(this.#scratch);
  }
}

/** An upload under way, which keeps a server that finishes what it has begun from leaving. */
export class Held {
  readonly wire: RawClient;
  readonly #trickle: NodeJS.Timeout;
  #left = HELD_BYTES;

  constructor(wire: RawClient) {
    this.wire = wire.request('POST', '/upload', { 'Content-Length': String(HELD_BYTES) });
    this.#send(10);
    this.#trickle = setInterval(() => this.#send(1), TRICKLE_MS);
    this.wire.socket.once('close', () => clearInterval(this.#trickle));
  }

  /** Sends what is left of it. @returns its answer */
  finish(): Promise<Outcome> {
    clearInterval(this.#trickle);
    this.#send(this.#left);
    return this.wire.answer();
  }

  #send(bytes: number): void {
    this.#left -= bytes;
    this.wire.write('x'.repeat(bytes));
  }
}

let nextPort = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT));

/** A port of 127.0.0.1 that is free, and that no other scenario gets. */
export async function freePort(): Promise<number> {
  for (;;) {
    nextPort = nextPort < LAST_PORT ? nextPort + 1 : FIRST_PORT;
    const port = nextPort;
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(false));
      server.listen(port, () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}
