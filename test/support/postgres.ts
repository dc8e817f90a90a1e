import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { ROOT } from './root.ts';
import { POLL_MS } from './server-process.ts';

/** Says that the server is there, then lives until its standard input ends: with this process, whatever becomes of it. */
const TENANT = 'env | grep -E "^(PG|PATH=)"; echo ready; exec cat';
/** For sessions to end whose client is gone: less than the time-outs of the example when no stop is under way. */
const QUIET_MS = 20_000;

/** A PostgreSQL of its own, by the script that the examples use. It goes with `end()`. */
export class Postgres {
  /** What its clients find it by. */
  readonly env: Readonly<Record<string, string>>;
  readonly #child: ChildProcess;
  #pool: pg.Pool;

  private constructor(child: ChildProcess, env: Readonly<Record<string, string>>) {
    this.#child = child;
    this.env = env;
    this.#pool = this.#connected();
  }

  /** @throws Error when the script fails, with what it says; where PostgreSQL is missing, that is how to install it */
  static async start(): Promise<Postgres> {
    const script = join(ROOT, 'examples/postgres/with-postgres.sh');
    const child = spawn(script, ['sh', '-c', TENANT], { stdio: ['pipe', 'pipe', 'pipe'] });
    const said: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => said.push(line));
    }
    const lines = createInterface({ input: child.stdout });
    const ready = new Promise<boolean>((resolve) => {
      lines.on('line', (line) => line === 'ready' && resolve(true));
      child.once('close', () => resolve(false));
    });
    if (!(await ready)) throw new Error(`There is no PostgreSQL: ${said.join('\n')}`);
    const env = said.flatMap((line) => {
      const [, name, value] = /^(\w+)=(.*)$/.exec(line) ?? [];
      return name === undefined || value === undefined ? [] : [[name, value] as const];
    });
    return new Postgres(child, Object.fromEntries(env));
  }

  /** Asks with a session of the test's own. */
  async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    const { rows } = await this.#pool.query<Row>(text, [...values]);
    return rows;
  }

  /** A session of the test's own, to hold locks with. `end()` closes it. */
  async session(): Promise<pg.Client> {
    const client = new pg.Client(this.#address);
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  /** @param mode `fast` rolls back what is under way and ends all sessions; `immediate` is a crash, with its recovery */
  async restart(mode: 'fast' | 'immediate'): Promise<void> {
    await this.#pool.end();
    const env = { ...process.env, ...this.env };
    await promisify(execFile)('sh', ['-c', `exec $PGCTL restart --mode=${mode}`], { env });
    this.#pool = this.#connected();
  }

  /** Changes a setting of the running server, for all sessions. */
  async configure(name: string, value: string): Promise<void> {
    await this.query(`ALTER SYSTEM SET ${name} = '${value}'`);
    await this.query('SELECT pg_reload_conf()');
    // Each session reads it when it next asks.
    await this.until(async () => {
      const [row] = await this.query<{ value: string }>(`SELECT current_setting('${name}') AS value`);
      return row?.value === value;
    }, `${name} = ${value}`);
  }

  /** Resolves when so many sessions of this application wait as `wanted` says, a condition on pg_stat_activity. */
  async sessions(application: string, wanted: string, least: number): Promise<void> {
    await this.until(
      async () => (await this.#count(application, wanted)) >= least,
      `${least} sessions of ${application} with ${wanted}`,
    );
  }

  /**
   * Resolves when no session of this application is left, or none that is as `wanted` says. One whose client was killed
   * may still commit.
   */
  async quiet(application: string, wanted = 'true'): Promise<void> {
    await this.until(
      async () => (await this.#count(application, wanted)) === 0,
      `no session of ${application} with ${wanted}`,
    );
  }

  /** Ends the server and removes it. */
  async end(): Promise<void> {
    await this.#pool.end();
    this.#child.stdin?.end();
    if (this.#child.exitCode === null) await once(this.#child, 'close');
  }

  async #count(application: string, wanted: string): Promise<number> {
    const [row] = await this.query<{ count: number }>(
      `SELECT count(*)::integer FROM pg_stat_activity WHERE application_name = $1 AND ${wanted}`,
      [application],
    );
    return row?.count ?? 0;
  }

  /** Asks again and again: the server tells nobody of its sessions. @throws Error when it takes too long */
  async until(reached: () => Promise<boolean>, what: string): Promise<void> {
    const untilMs = performance.now() + QUIET_MS;
    while (!(await reached())) {
      if (performance.now() > untilMs) throw new Error(`not within ${QUIET_MS / 1000} s: ${what}`);
      await delay(POLL_MS);
    }
  }

  get #address(): pg.ClientConfig {
    const { PGHOST: host, PGPORT: port, PGUSER: user, PGDATABASE: database } = this.env;
    return { host, port: Number(port), user, database, application_name: 'test' } as pg.ClientConfig;
  }

  #connected(): pg.Pool {
    const pool = new pg.Pool({ ...this.#address, max: 2 });
    pool.on('error', () => undefined);
    return pool;
  }
}
