// Takes jobs from a table and does them, a few at a time. While a job runs, a transaction holds its row: whoever else
// looks for jobs skips it, and when the transaction ends without COMMIT, by whatever, it is in the queue again.
import { setTimeout as delay } from 'node:timers/promises';

const AT_A_TIME = 4;
/** Jobs that came to another process, or were given back, are found within this time. */
const LOOK_MS = 1_000;

export class Consumer {
  #pool;
  #log;
  #inFlight;
  #locked = new AbortController();
  #cut = new AbortController();
  #woken = new AbortController();
  /** Looks for a job that are under way. */
  #looks = new Set();
  #lines = [];

  constructor({ pool, log, inFlight }) {
    this.#pool = pool;
    this.#log = log;
    this.#inFlight = inFlight;
  }

  start() {
    this.#lines = Array.from({ length: AT_A_TIME }, () => this.#line());
  }

  /** There may be something to do. */
  wake() {
    this.#woken.abort();
    this.#woken = new AbortController();
  }

  /** Resolves when no more jobs are begun: the drain that follows waits for those that are. */
  async lock() {
    this.#locked.abort();
    await Promise.allSettled(this.#looks);
  }

  /** Gives back what still runs. */
  async stop() {
    this.#locked.abort();
    this.#cut.abort();
    await Promise.all(this.#lines);
  }

  async #line() {
    while (!this.#locked.signal.aborted) {
      // Before the look: who wakes us meanwhile has not done so in vain.
      const woken = this.#woken.signal;
      const look = this.#next();
      this.#looks.add(look);
      const run = await look.catch((error) => this.#log.warn(`No job could be fetched: ${error.message}`));
      this.#looks.delete(look);
      if (run === undefined) await this.#pause(woken);
      else await run();
    }
  }

  /** Until somebody says that there is a job, for a while, or until the lock. */
  async #pause(woken = this.#woken.signal) {
    const signal = AbortSignal.any([woken, this.#locked.signal]);
    await delay(LOOK_MS, undefined, { signal }).catch(() => undefined);
  }

  /** @returns what does the next job; undefined when there is none */
  async #next() {
    const client = await this.#pool.connect();
    try {
      await client.query('BEGIN');
      const { rows } = await client.query(
        'SELECT id, seconds FROM jobs WHERE done IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED',
      );
      const [job] = rows;
      if (job !== undefined) {
        // What status, log and report call it while a stop waits for it.
        const leave = this.#inFlight.enter(`job ${job.id}`);
        return () => this.#run(client, job).finally(leave);
      }
      await client.query('ROLLBACK');
      client.release();
    } catch (error) {
      client.release(true);
      throw error;
    }
  }

  async #run(client, job) {
    try {
      await this.#pool.query('INSERT INTO runs (job) VALUES ($1)', [job.id]);
      await work(job, this.#cut.signal);
      await client.query('INSERT INTO results (job) VALUES ($1)', [job.id]);
      await client.query('UPDATE jobs SET done = clock_timestamp() WHERE id = $1', [job.id]);
      await client.query('COMMIT');
      client.release();
    } catch (error) {
      // The end of the session is its ROLLBACK.
      client.release(true);
      this.#log.warn(`job ${job.id} goes back to the queue: ${error.message}`);
      await this.#pause();
    }
  }
}

/** Stands for what takes time. What it does outside this database has to bear being done twice. */
async function work({ seconds }, signal) {
  await delay(seconds * 1000, undefined, { signal });
}
