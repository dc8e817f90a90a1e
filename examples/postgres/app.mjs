// Money is moved between accounts on PostgreSQL. However the service ends, a transfer is made whole or not at all.
import { readFile } from 'node:fs/promises';
import { HttpError, readJson, sendJson } from 'master-agent';
import { Database } from './database.mjs';

let database;

export default {
  async start({ log }) {
    database = await Database.open();
    await database.migrate(await readFile(new URL('schema.sql', import.meta.url), 'utf8'));
    log.info('The accounts are open');
  },

  routes(router) {
    router.post('/transfers', makeTransfer);
    router.get('/transfers/:key', showTransfer);
    router.get('/accounts', listAccounts);
    router.get('/report', makeReport);
  },

  stop: () => database.close(),
};

async function makeTransfer(request, response, context) {
  const order = { ...(await readJson(request, { limit: 1_000 })), key: request.headers['idempotency-key'] };
  check(order);
  const transfer = await database
    .transaction(context, async (query) => {
      const [begun] = await rowsOf(
        query(
          `INSERT INTO transfers (key, payer, payee, amount) VALUES ($1, $2, $3, $4)
         ON CONFLICT (key) DO NOTHING RETURNING key, payer, payee, amount, xid::text`,
          [order.key, order.payer, order.payee, order.amount],
        ),
      );
      if (begun === undefined) return made(query, order, context);
      // On record before it is done: what is cut from here on can be decided by pg_xact_status(xid).
      context.audit({ transfer: begun.key, xid: begun.xid });
      // In one order, so that two transfers cannot wait for each other.
      await query('SELECT id FROM accounts WHERE id IN ($1, $2) ORDER BY id FOR NO KEY UPDATE', [
        begun.payer,
        begun.payee,
      ]);
      await query(
        'UPDATE accounts SET balance = balance + CASE id WHEN $1 THEN -$3::integer ELSE $3 END WHERE id IN ($1, $2)',
        [begun.payer, begun.payee, begun.amount],
      );
      return begun;
    })
    .catch(explain);
  sendJson(response, 200, transfer);
}

/** The same order came before: it gets the same answer. */
async function made(query, order, context) {
  const [transfer] = await rowsOf(
    query('SELECT key, payer, payee, amount, xid::text FROM transfers WHERE key = $1', [order.key]),
  );
  if (['payer', 'payee', 'amount'].some((field) => transfer[field] !== order[field]))
    throw new HttpError(422, `Idempotency-Key ${order.key} belongs to another transfer.`);
  context.audit({ transfer: transfer.key, xid: transfer.xid, repeated: true });
  return transfer;
}

async function showTransfer(_request, response, context) {
  const { key } = context.params;
  const read = (query) => query('SELECT key, payer, payee, amount FROM transfers WHERE key = $1', [key]);
  const [transfer] = await rowsOf(database.transaction(context, read, 'READ ONLY'));
  if (transfer === undefined) throw new HttpError(404, `There is no transfer ${key}.`);
  sendJson(response, 200, transfer);
}

async function listAccounts(_request, response, context) {
  const read = (query) => query('SELECT id, balance::float8 FROM accounts ORDER BY id');
  sendJson(response, 200, { accounts: await rowsOf(database.transaction(context, read, 'READ ONLY')) });
}

/** Slow on purpose: a stop waits for it, and a client that leaves ends its statement too. */
async function makeReport(_request, response, context) {
  const seconds = Number(context.query.get('seconds') ?? 5);
  if (!(seconds >= 0 && seconds <= 60)) throw new HttpError(400, 'seconds: want a number from 0 to 60.');
  const read = (query) =>
    query('SELECT count(*)::integer AS accounts, sum(balance)::float8 AS total FROM accounts, pg_sleep($1)', [
      seconds,
    ]);
  const [report] = await rowsOf(database.transaction(context, read, 'READ ONLY'));
  sendJson(response, 200, report);
}

function check({ key, payer, payee, amount }) {
  if (typeof key !== 'string' || !/^[\w.:-]{1,100}$/.test(key))
    throw new HttpError(400, 'Idempotency-Key: want 1 to 100 letters, digits, or any of _ . : -');
  for (const [name, value] of Object.entries({ payer, payee, amount })) {
    if (!(Number.isInteger(value) && value > 0 && value < 2 ** 31))
      throw new HttpError(400, `${name}: want a positive integer.`);
  }
  if (payer === payee) throw new HttpError(400, 'payee: want another account than the payer.');
}

/** What the tables do not allow is the client's mistake. */
function explain(error) {
  if (error.constraint === 'covered') throw new HttpError(409, 'The payer has not so much.');
  if (error.code === '23503') throw new HttpError(404, 'There is no such account.');
  throw error;
}

async function rowsOf(result) {
  return (await result).rows;
}
