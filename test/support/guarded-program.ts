import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { ProgramStatus } from '../../src/ops/status.ts';
import { RawClient, type RawResponse } from './raw-client.ts';
import { ROOT } from './root.ts';
import { ServiceProcess, type SpawnOptions, tempDir } from './service-process.ts';

/** A program with handlers that wait for doors, and habits. */
export const PROGRAM = join(ROOT, 'test/fixtures/guarded-program.mjs');

export interface GuardedOptions {
  /** Of the program: how it misbehaves. */
  readonly habit?: string;
  readonly env?: SpawnOptions['env'];
  /** Default: the program on a Unix socket. */
  readonly command?: readonly string[];
  readonly nodeArgs?: readonly string[];
  /** Of a run before this one, to go on in. Default: a new one. */
  readonly dir?: string;
}

/** `master-agent guard` with its program, in a directory of its own. */
export class GuardedProgram {
  readonly dir: string;
  readonly service: ServiceProcess;
  readonly #t: Test;

  private constructor(t: Test, service: ServiceProcess, dir: string) {
    this.#t = t;
    this.service = service;
    this.dir = dir;
  }

  static spawn(
    t: Test,
    { habit = '', env = {}, command, nodeArgs = [], dir = tempDir(t) }: GuardedOptions = {},
  ): GuardedProgram {
    mkdirSync(join(dir, 'doors'), { recursive: true });
    const words = command ?? [process.execPath, PROGRAM, '{socket}', habit];
    const service = ServiceProcess.spawn(t, {
      args: ['guard', '--', ...words],
      nodeArgs,
      cwd: dir,
      stateDir: join(dir, 'state'),
      env: { DOORS: join(dir, 'doors'), LEDGER: join(dir, 'ledger'), ...env },
    });
    return new GuardedProgram(t, service, dir);
  }

  static async running(t: Test, options: GuardedOptions = {}): Promise<GuardedProgram> {
    const guarded = GuardedProgram.spawn(t, options);
    await guarded.service.accepting();
    return guarded;
  }

  get port(): number {
    return this.service.port;
  }

  /** Opens a connection that goes with the test. */
  async connect(): Promise<RawClient> {
    const client = await RawClient.open(this.port);
    this.#t.teardown(() => client.destroy());
    return client;
  }

  /** Asks once, on a connection of its own. */
  async get(path = '/'): Promise<RawResponse> {
    const client = await this.connect();
    const answer = await client.get(path).response();
    client.destroy();
    return answer;
  }

  /** Holds a request in flight in the program. */
  async hold(name: string): Promise<RawClient> {
    const client = (await this.connect()).get(`/hold/${name}`);
    await this.service.line(`holding ${name}`);
    return client;
  }

  /** Lets the handlers that wait under this name go on; `ill` and `broken` are its habits. */
  open(name: string): void {
    writeFileSync(join(this.dir, 'doors', name), '');
  }

  shut(name: string): void {
    rmSync(join(this.dir, 'doors', name), { force: true });
  }

  /** Ids of requests in the order in which the program has seen them. */
  get ledger(): string[] {
    return this.#seen.map(([id]) => id);
  }

  /** Their targets, in the same order. */
  get targets(): string[] {
    return this.#seen.map(([, target]) => target);
  }

  get #seen(): [id: string, target: string][] {
    const file = join(this.dir, 'ledger');
    if (!existsSync(file)) return [];
    const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
    return lines.map((line) => line.split(' ') as [string, string]);
  }

  /** The instances that serve, when there are as many as there should be and nobody else. */
  async pids(count = 1): Promise<number[]> {
    const { instances } = await this.statusWhen(
      ({ instances }) => instances.length === count && instances.every(({ state }) => state === 'serving'),
    );
    return instances.map(({ pid }) => pid);
  }

  async statusWhen(holds: (program: ProgramStatus) => boolean): Promise<ProgramStatus> {
    const { program } = await this.service.statusWhen(({ program }) => program !== null && holds(program));
    return program as ProgramStatus;
  }

  /** Signals and comes back when the service has told how the reload went. */
  async reload(): Promise<void> {
    const before = this.#reloads;
    this.service.signal('SIGHUP');
    await this.service.until(() => (this.#reloads > before ? true : undefined), 'the end of the reload');
  }

  get #reloads(): number {
    return this.service.lines.filter((line) => /Reloaded: generation|Reload refused/.test(line)).length;
  }

  /** The records of requests in the audit log. */
  audit(): Record<string, unknown>[] {
    const text = readFileSync(join(this.service.stateDir, 'audit.ndjson'), 'utf8');
    return text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
      .filter(({ type }) => type === 'request');
  }
}
