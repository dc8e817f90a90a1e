import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Test } from 'tap';
import { isAlive } from '../../src/platform/process-identity.ts';
import { RawClient, type RawResponse } from './raw-client.ts';
import { ROOT } from './root.ts';
import { POLL_MS, ServiceProcess, type SpawnOptions, tempDir } from './service-process.ts';

/** The application of these tests: its handlers wait for doors that `WorkersService.open` opens, in whichever worker. */
export const WORKERS_APP = join(ROOT, 'test/fixtures/workers-app.mjs');

export interface WorkersOptions {
  readonly workers?: number;
  /** A program behind the gate instead of an application: it has the same handlers that wait. */
  readonly guards?: boolean;
  readonly env?: SpawnOptions['env'];
  /** The text of an application's module instead of WORKERS_APP. It can be replaced by `rewrite`. */
  readonly app?: string;
  /** The text of a `.env`, which a reload reads anew. */
  readonly dotenv?: string;
}

/** A supervisor with its workers, in a directory of its own. */
export class WorkersService {
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
    { workers = 2, guards = false, env = {}, app, dotenv }: WorkersOptions = {},
  ): WorkersService {
    const dir = tempDir(t);
    mkdirSync(join(dir, 'doors'));
    mkdirSync(join(dir, 'state'));
    if (app !== undefined) writeFileSync(join(dir, 'app.mjs'), app);
    if (dotenv !== undefined) writeFileSync(join(dir, '.env'), dotenv);
    const service = ServiceProcess.spawn(t, {
      args: guards
        ? ['guard', '--', process.execPath, join(ROOT, 'test/fixtures/guarded-program.mjs'), '{socket}']
        : [app === undefined ? WORKERS_APP : 'app.mjs'],
      cwd: dir,
      stateDir: join(dir, 'state'),
      env: { WORKERS: String(workers), DOORS: join(dir, 'doors'), ...env },
    });
    return new WorkersService(t, service, dir);
  }

  static async running(t: Test, options: WorkersOptions = {}): Promise<WorkersService> {
    const pool = WorkersService.spawn(t, options);
    await pool.service.accepting();
    return pool;
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

  /** The process that answers on this connection. */
  async pidOf(client: RawClient): Promise<number> {
    return JSON.parse((await client.get('/').response()).body).pid;
  }

  /** Lets the handlers that wait under this name go on. */
  open(name: string): void {
    writeFileSync(join(this.dir, 'doors', name), '');
  }

  rewrite(app: string): void {
    writeFileSync(join(this.dir, 'app.mjs'), app);
  }

  setDotenv(text: string): void {
    writeFileSync(join(this.dir, '.env'), text);
  }

  /** The workers that serve, when there are as many as there should be and nobody else. */
  async pids(count = 2): Promise<number[]> {
    const { workers } = await this.service.statusWhen(
      ({ workers }) =>
        workers?.length === count &&
        workers.every(({ state, heard_ms_ago }) => state === 'serving' && heard_ms_ago < 2_000),
    );
    return (workers ?? []).map(({ pid }) => pid);
  }

  /** Signals and comes back when the service is told how the reload went. */
  async reload(times = 1): Promise<void> {
    const before = this.reloads;
    this.service.signal('SIGHUP');
    await this.service.until(
      () => (this.reloads >= before + times ? true : undefined),
      'the end of the reload',
    );
  }

  /** Reloads that are over, however they went. */
  get reloads(): number {
    return this.service.lines.filter((line) => /Reloaded: generation|Reload refused/.test(line)).length;
  }

  /** The records of the audit log, without the seals. */
  audit(): Record<string, unknown>[] {
    const text = readFileSync(join(this.service.stateDir, 'audit.ndjson'), 'utf8');
    return text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
      .filter(({ type }) => type !== 'seal');
  }
}

/** Resolves when there is no such process any more. The system tells nobody but its parent. */
export async function gone(pid: number): Promise<void> {
  while (isAlive(pid)) await delay(POLL_MS);
}

/** How many lines contain this. */
export function count(lines: readonly string[], text: string): number {
  return lines.filter((line) => line.includes(text)).length;
}
