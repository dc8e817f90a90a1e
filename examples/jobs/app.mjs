// Jobs come over HTTP into a table, and a consumer beside the routes does them. However the service ends, a job that
// was accepted is done, and its result is there once.
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { HttpError, readJson, sendJson } from 'master-agent';
import pg from 'pg';
import { Consumer } from './consumer.mjs';

let pool;
let consumer;

export default {
  async start({ log, inFlight }) {
    pool = new pg.Pool({
      connectionString: process.env.DATABASE_URL,
      max: 10,
      connectionTimeoutMillis: 5_000,
      // A job is a transaction that waits for its work: longer than the longest job. A hung service then gives it back.
      options: '-c idle_in_transaction_session_timeout=120s -c client_connection_check_interval=500ms',
    });
    pool.on('error', () => undefined);
    pool.on('connect', (client) => client.on('error', () => undefined));
    const schema = await readFile(new URL('schema.sql', import.meta.url), 'utf8');
    await pool.query(`BEGIN; SELECT pg_advisory_xact_lock(2); ${schema}; COMMIT`);
    consumer = new Consumer({ pool, log, inFlight });
    consumer.start();
  },

  routes(router) {
    router.post('/jobs', acceptJob);
    router.get('/jobs', countJobs);
    router.get('/jobs/:id', showJob);
  },

  // No job is begun from here on. Those that run are waited for, by name, until the deadline.
  locked: () => consumer.lock(),

  // After the last job, or after the deadline has cut those that are left: they go back to the queue.
  async stop({ deadline }) {
    const closed = consumer.stop().then(() => pool.end());
    // It waits for connections that are in use, however long.
    await Promise.race([closed, delay(deadline - 100, undefined, { ref: false })]);
  },
};

async function acceptJob(request, response, context) {
  const { seconds } = await readJson(request, { limit: 1_000 });
  const key = request.headers['idempotency-key'];
  if (!(seconds >= 0 && seconds <= 60)) throw new HttpError(400, 'seconds: want a number from 0 to 60.');
  if (typeof key !== 'string' || !/^[\w.:-]{1,100}$/.test(key))
    throw new HttpError(400, 'Idempotency-Key: want 1 to 100 letters, digits, or any of _ . : -');
  // A job that came before with this key is the same job.
  await pool.query('INSERT INTO jobs (key, seconds) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING', [
    key,
    seconds,
  ]);
  const { rows } = await pool.query('SELECT id, seconds FROM jobs WHERE key = $1', [key]);
  context.audit({ job: rows[0].id });
  consumer.wake();
  sendJson(response, 202, rows[0]);
}

async function countJobs(_request, response) {
  const { rows } = await pool.query(
    'SELECT count(*)::integer AS jobs, count(done)::integer AS done FROM jobs',
  );
  sendJson(response, 200, rows[0]);
}

async function showJob(_request, response, { params }) {
  const { rows } = await pool.query(
    `SELECT id, seconds, done, (SELECT count(*)::integer FROM runs WHERE job = id) AS runs
     FROM jobs WHERE id::text = $1`,
    [params.id],
  );
  if (rows.length === 0) throw new HttpError(404, `There is no job ${params.id}.`);
  sendJson(response, 200, rows[0]);
}
