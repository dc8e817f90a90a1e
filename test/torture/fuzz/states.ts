import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { parseConfig } from '../../../src/config/settings.ts';
import { Lifecycle } from '../../../src/lifecycle/lifecycle.ts';
import { Connections } from '../../../src/server/connections.ts';
import { Gate } from '../../../src/server/gate.ts';
import { InFlight } from '../../../src/server/in-flight.ts';
import { RequestAudit } from '../../../src/server/request-audit.ts';
import { Router } from '../../../src/server/router.ts';
import { createHttpServer, routed } from '../../../src/server/server.ts';
import { TrustedProxies } from '../../../src/server/trusted-proxies.ts';
import { ROOT } from '../../support/root.ts';
import { ServerProcess } from '../../support/server-process.ts';
import type { Admission, Dispatch } from './play.ts';

/** What a service can be doing while it is fuzzed. `signalled`: running, and the signal comes in the middle. */
export const STATES = ['starting', 'running', 'overloaded', 'lame duck', 'stopping', 'signalled'] as const;
export type StateName = (typeof STATES)[number];

/** Something in one of these states, made ready to be fuzzed. */
export interface Target {
  readonly state: StateName;
  readonly port: number;
  readonly admission: Admission;
  /** The signal that comes in the middle, in the state that is about it. */
  interrupt(): void;
  /** What was dispatched since the last look. */
  dispatches(): Dispatch[];
  /** What is wrong with it after a batch of cases, one sentence each. */
  health(): Promise<string[]>;
  /** Ends it as its state asks for. @returns what was wrong with its end, one sentence each */
  close(): Promise<string[]>;
  kill(): Promise<void>;
}

export function openTarget(state: StateName, guards = false): Promise<Target> {
  return state === 'starting' ? StartingServer.open() : ServiceTarget.open(state, guards);
}

type Served = Exclude<StateName, 'starting'>;

const SETTINGS: Readonly<Record<Served, Readonly<Record<string, string>>>> = {
  running: {},
  overloaded: { MAX_IN_FLIGHT: '1' },
  'lame duck': { SHUTDOWN_DELAY: '3600' },
  stopping: {},
  signalled: {},
};

/** How long what a batch has left behind may take to be over. */
const SETTLE_MS = 10_000;
/** How long a stop may take, far beyond what is set for it. */
const CLOSE_MS = 90_000;

/** A service of its own process. */
class ServiceTarget implements Target {
  readonly state: Served;
  readonly #service: ServerProcess;
  readonly #dir: string;
  #held = 0;
  #read = 0;

  private constructor(state: Served, service: ServerProcess, dir: string) {
    this.state = state;
    this.#service = service;
    this.#dir = dir;
  }

  static async open(state: Served, guards: boolean): Promise<Target> {
    const dir = mkdtempSync(join(tmpdir(), 'master-agent-fuzz-'));
    writeFileSync(join(dir, 'ledger'), '');
    const program = [process.execPath, join(ROOT, 'test/torture/fuzz/guarded-target.mjs'), '{socket}'];
    const service = await ServerProcess.ours(guards ? 'guard' : 'test/torture/fuzz/target.mjs', {
      ...(guards ? { GUARD_COMMAND: JSON.stringify(program) } : {}),
      STATE_DIR: dir,
      FUZZ_LEDGER: join(dir, 'ledger'),
      FUZZ_DOOR: join(dir, 'door'),
      ADMIN_TOKEN: 'never-sent-by-the-fuzzer',
      SHUTDOWN_TIMEOUT: '60',
      ...SETTINGS[state],
    });
    const target = new ServiceTarget(state, service, dir);
    if (state === 'overloaded' || state === 'stopping') await target.#hold();
    if (state === 'lame duck' || state === 'stopping') {
      service.signal('SIGTERM');
      await service.line(state === 'stopping' ? 'Service state: STOPPING' : 'Lame duck');
    }
    return target;
  }

  get port(): number {
    return this.#service.port;
  }

  get admission(): Admission {
    if (this.state === 'signalled') return 'either';
    return this.state === 'overloaded' || this.state === 'stopping' ? 'refused' : 'admitted';
  }

  interrupt(): void {
    if (this.state === 'signalled') this.#service.signal('SIGTERM');
  }

  dispatches(): Dispatch[] {
    const text = readFileSync(join(this.#dir, 'ledger'), 'utf8');
    const fresh = text.slice(this.#read);
    this.#read = text.length;
    return fresh
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line));
  }

  async health(): Promise<string[]> {
    if (this.state === 'signalled') return [];
    const wrong = this.#complaints();
    // Answered as soon as what the batch has left behind is over; a service that hangs is found by the caller's limit.
    const deadlineMs = performance.now() + SETTLE_MS;
    let inFlight = Number.NaN;
    while (inFlight !== this.#held && performance.now() < deadlineMs) {
      const answer = await fetch(`http://127.0.0.1:${this.#service.opsPort}/status`).catch(() => undefined);
      if (answer === undefined) return [...wrong, 'the ops server does not answer'];
      inFlight = ((await answer.json()) as { in_flight: { count: number } }).in_flight.count;
    }
    if (inFlight !== this.#held) wrong.push(`${inFlight} in flight, want ${this.#held}`);
    return wrong;
  }

  async close(): Promise<string[]> {
    writeFileSync(join(this.#dir, 'door'), '');
    if (this.state !== 'stopping') this.#service.signal('SIGTERM');
    // Another SIGTERM ends no lame duck, a second SIGINT does.
    const impatience = setInterval(() => this.state === 'lame duck' && this.#service.signal('SIGINT'), 50);
    const timer = setTimeout(() => void this.#service.kill(), CLOSE_MS);
    const { code, signal } = await this.#service.exited;
    clearInterval(impatience);
    clearTimeout(timer);
    const wrong = this.#complaints();
    if (code !== 0)
      wrong.push(`it ended with ${code ?? signal}:\n${this.#service.lines.slice(-20).join('\n')}`);
    const audit = spawnSync(
      process.execPath,
      [join(ROOT, 'dist/main.js'), 'verify-audit', join(this.#dir, 'audit.ndjson')],
      { encoding: 'utf8' },
    );
    if (audit.status !== 0) wrong.push(`verify-audit: ${audit.stdout}${audit.stderr}`);
    rmSync(this.#dir, { recursive: true, force: true });
    return wrong;
  }

  async kill(): Promise<void> {
    await this.#service.kill();
    rmSync(this.#dir, { recursive: true, force: true });
  }

  async #hold(): Promise<void> {
    const socket = connect(this.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write('GET /fuzz-hold HTTP/1.1\r\nHost: fuzz\r\n\r\n');
    await this.#service.line('A request is held');
    this.#held = 1;
  }

  #complaints(): string[] {
    return this.#service.lines
      .filter((line) => /"level":"(fatal|error)"|^\s+at |Warning:|Error:/.test(line))
      .map((line) => `logged: ${line}`);
  }
}

/**
 * The service's server before the service runs. A process does not listen then, so this is the server by itself, as a
 * program that embeds a service has it.
 */
class StartingServer implements Target {
  readonly state = 'starting';
  readonly admission = 'refused';
  readonly #server: Server;
  readonly #inFlight: InFlight;
  readonly #dispatches: Dispatch[] = [];

  private constructor() {
    const lifecycle = new Lifecycle();
    const connections = new Connections();
    const log = pino({ level: 'silent' });
    this.#inFlight = new InFlight();
    const around = { lifecycle, inFlight: this.#inFlight, log, proxies: new TrustedProxies(undefined) };
    const limits = parseConfig({});
    const router = new Router().mount('/', (request, response) => {
      const port = request.socket.remotePort ?? 0;
      const { method = '', url = '' } = request;
      this.#dispatches.push({ serial: this.#dispatches.length, port, method, url });
      response.end();
    });
    const requestAudit = new RequestAudit();
    const gate = new Gate({ ...around, connections, requestAudit }, limits);
    this.#server = createHttpServer(
      {
        ...{ ...around, gate, connections, requestAudit },
        ...{ accepting: () => true, logsAccess: () => false },
      },
      routed(router),
      limits,
    ).server;
  }

  static async open(): Promise<Target> {
    const target = new StartingServer();
    target.#server.listen(0, '127.0.0.1');
    await once(target.#server, 'listening');
    return target;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  interrupt(): void {}

  dispatches(): Dispatch[] {
    return this.#dispatches.splice(0);
  }

  async health(): Promise<string[]> {
    const { count } = this.#inFlight;
    return count === 0 ? [] : [`${count} in flight, want 0`];
  }

  async close(): Promise<string[]> {
    await this.kill();
    return [];
  }

  async kill(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
