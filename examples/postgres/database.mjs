// Transactions that end with the request that began them: committed, or rolled back.
import { setTimeout as delay } from 'node:timers/promises';
import { HttpError } from 'master-agent';
import pg from 'pg';

const CONNECTIONS = 10;
const CONNECT_MS = 5_000;
/** Less than the second that stop() has at least. */
const CLOSE_MS = 800;

/** What the server does by itself when this process hangs, or is killed. `context.deadline` makes the first two less. */
export const OPTIONS = [
  '-c statement_timeout=30s',
  '-c idle_in_transaction_session_timeout=30s',
  // Otherwise a statement outside a transaction is committed even if its client was killed meanwhile.
  '-c client_connection_check_interval=500ms',
].join(' ');

export class Database {
  #pool;
  /** For cancelling, which has to work when all other connections are busy. */
  #control;
  #busy = new Set();
  #timeouts;

  /** Connects by DATABASE_URL, else by PGHOST, PGPORT and so on. @throws Error when there is no server */
  static async open() {
    const database = new Database();
    const { rows } = await database.#pool.query('SHOW server_version_num');
    database.#timeouts = ['statement_timeout', 'idle_in_transaction_session_timeout'];
    if (Number(rows[0].server_version_num) >= 170_000) database.#timeouts.push('transaction_timeout');
    return database;
  }

  constructor() {
    const settings = {
      connectionString: process.env.DATABASE_URL,
      connectionTimeoutMillis: CONNECT_MS,
      options: OPTIONS,
    };
    this.#pool = new pg.Pool({ ...settings, max: CONNECTIONS });
    this.#control = new pg.Pool({ ...settings, max: 1 });
    for (const pool of [this.#pool, this.#control]) {
      // The server was restarted: the pool drops the connection, and whoever uses it hears of it from the query.
      pool.on('error', () => undefined);
      pool.on('connect', (client) => client.on('error', () => undefined));
    }
    this.#pool.on('acquire', (client) => this.#busy.add(client));
    this.#pool.on('release', (_error, client) => this.#busy.delete(client));
  }

  /** Runs statements that make the tables, one process at a time. */
  async migrate(statements) {
    await this.#pool.query(`BEGIN; SELECT pg_advisory_xact_lock(1); ${statements}; COMMIT`);
  }

  /**
   * Runs `work(query)` in a transaction and commits it. When `context.signal` is aborted, the running statement is
   * cancelled and all is rolled back.
   * @throws HttpError 503 when the database has done nothing of it, 502 when it was lost during COMMIT
   */
  async transaction(context, work, mode = 'READ WRITE') {
    const { signal } = context;
    const client = await this.#pool.connect().catch(unavailable);
    let cancelled;
    const cancel = () => {
      cancelled ??= this.#control
        .query('SELECT pg_cancel_backend($1)', [client.processID])
        // The server notices by client_connection_check_interval.
        .catch(() => client.end());
    };
    signal.addEventListener('abort', cancel, { once: true });
    let failed = false;
    try {
      signal.throwIfAborted();
      await client.query(`BEGIN ${mode}`).catch(unavailable);
      const result = await work(async (text, values) => {
        await this.#limit(client, context.deadline);
        return client.query(text, values);
      }).catch(unavailable);
      signal.throwIfAborted();
      await this.#limit(client, context.deadline).catch(unavailable);
      await commit(client);
      return result;
    } catch (error) {
      failed = await client.query('ROLLBACK').then(
        () => false,
        () => true,
      );
      throw error;
    } finally {
      signal.removeEventListener('abort', cancel);
      await cancelled;
      // A cancel that comes late must not hit the next transaction.
      client.release(failed || cancelled !== undefined);
    }
  }

  /** During a stop nothing may take longer than the stop, even if this process hangs or is gone. */
  async #limit(client, deadline) {
    if (deadline === undefined) return;
    // 0 would be no limit.
    const ms = Math.max(1, Math.floor(deadline));
    await client.query(this.#timeouts.map((name) => `SET LOCAL ${name} = ${ms}`).join('; '));
  }

  /** Comes back within a second: `pool.end()` alone waits for as long as a connection is in use. */
  async close() {
    const ended = this.#pool.end().then(() => this.#control.end());
    await Promise.race([ended, delay(CLOSE_MS, undefined, { ref: false })]);
    for (const client of this.#busy) void client.end();
  }
}

async function commit(client) {
  let command;
  try {
    ({ command } = await client.query('COMMIT'));
  } catch (error) {
    // An ERROR of the server is its answer: rolled back. After anything else nobody knows.
    if (error.severity === 'ERROR') unavailable(error);
    throw new HttpError(502, 'The database was lost during COMMIT. Ask again with the same Idempotency-Key.');
  }
  // COMMIT of a transaction in which a statement has failed is no error.
  if (command !== 'COMMIT') throw new HttpError(503, 'The transaction was rolled back.');
}

/** Classes of SQLSTATE in which the server, not the statement, is why: lost, out of resources, stopping, cancelled. */
const NOT_THE_STATEMENT = /^(08|40|53|55|57)/;

/** Nothing was committed, so the client may simply ask again. */
function unavailable(error) {
  const isOfStatement = error instanceof HttpError || (error.severity && !NOT_THE_STATEMENT.test(error.code));
  if (isOfStatement) throw error;
  throw new HttpError(503, `The database cannot do this now, and has done nothing of it: ${error.message}`);
}
