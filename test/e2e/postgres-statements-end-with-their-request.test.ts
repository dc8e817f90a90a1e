import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import t, { type Test } from 'tap';
import { installExample } from '../support/documents.ts';
import { Postgres } from '../support/postgres.ts';
import { RawClient } from '../support/raw-client.ts';
import type { ServerProcess } from '../support/server-process.ts';
import { tempDir } from '../support/service-process.ts';
import { serve } from '../support/transfer-rounds.ts';

const postgres = await Postgres.start();
t.teardown(() => postgres.end());

async function serving(
  t: Test,
  name: string,
  env: Readonly<Record<string, string>> = {},
): Promise<ServerProcess> {
  const service = await serve(postgres, name, env);
  t.teardown(() => service.kill());
  return service;
}

/** A program beside a copy of the example, whose sessions have this name. */
function running(t: Test, name: string, program: string): ChildProcess {
  const cwd = tempDir(t);
  installExample('postgres', cwd);
  const env = { ...process.env, ...postgres.env, PGAPPNAME: name };
  const args = ['--input-type=module', '--eval', program];
  const child = spawn(process.execPath, args, { cwd, env, stdio: ['ignore', 'inherit', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  return child;
}

async function transfer(port: number, key: string): Promise<Response> {
  return fetch(`http://127.0.0.1:${port}/transfers`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key },
    body: '{"payer":1,"payee":2,"amount":5}',
  });
}

t.test('a client that leaves takes its statement with it', async (t) => {
  const service = await serving(t, 'left');
  const client = (await RawClient.open(service.port)).get('/report?seconds=60');
  await postgres.sessions('left', "wait_event = 'PgSleep'", 1);
  client.destroy();
  await postgres.quiet('left', "state <> 'idle'");
  const answer = await fetch(`http://127.0.0.1:${service.port}/report?seconds=0`);
  t.strictSame(await answer.json(), { accounts: 10, total: 10_000_000 }, 'and the next one is answered');
});

t.test('a report at the deadline is cut, and its statement with it', async (t) => {
  const service = await serving(t, 'late', { SHUTDOWN_TIMEOUT: '0.3' });
  const client = (await RawClient.open(service.port)).get('/report?seconds=60');
  await postgres.sessions('late', "wait_event = 'PgSleep'", 1);
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 1, signal: null });
  await postgres.quiet('late');
  client.destroy();
});

for (const waitsFor of ['lock', 'client'] as const) {
  t.test(`a service hangs: the server ends a transaction that waits for a ${waitsFor}`, async (t) => {
    const name = `hangs-${waitsFor}`;
    const service = await serving(t, name, { SHUTDOWN_TIMEOUT: '1' });
    const [row, table] = await Promise.all([postgres.session(), postgres.session()]);
    t.teardown(() => Promise.all([row.end(), table.end()]));
    await row.query('BEGIN; SELECT FROM accounts WHERE id = 1 FOR NO KEY UPDATE');
    // Rows can be locked meanwhile, but not changed.
    await table.query('BEGIN; LOCK TABLE accounts IN SHARE MODE');
    const answer = transfer(service.port, name).catch((error: Error) => error);
    await postgres.sessions(name, "wait_event_type = 'Lock' AND query LIKE 'SELECT%'", 1);
    service.signal('SIGTERM');
    await service.line('Service state: STOPPING');
    await row.query('ROLLBACK');
    // From here on each statement has the deadline.
    await postgres.sessions(name, "wait_event_type = 'Lock' AND query LIKE 'UPDATE%'", 1);
    service.signal('SIGSTOP');
    if (waitsFor === 'client') await table.query('ROLLBACK');
    // An aborted transaction holds no lock.
    await postgres.quiet(name, "state NOT IN ('idle', 'idle in transaction (aborted)')");
    t.strictSame(await postgres.query('SELECT key FROM transfers WHERE key = $1', [name]), []);
    await service.kill();
    t.type(await answer, Error);
  });
}

t.test('the pool is closed in time, whatever a transaction waits for', async (t) => {
  const code = `
    import { Database } from './database.mjs';
    const database = await Database.open();
    const context = { signal: new AbortController().signal, deadline: undefined };
    void database.transaction(context, () => new Promise(() => setInterval(() => {}, 1000)));
    void database.transaction(context, (query) => query('SELECT pg_sleep(60)')).catch(() => undefined);
    process.once('SIGTERM', async () => {
      await database.close();
      process.exit(17);
    });`;
  const child = running(t, 'closes', code);
  await postgres.sessions('closes', "wait_event = 'PgSleep' OR state = 'idle in transaction'", 2);
  child.kill('SIGTERM');
  t.strictSame(await once(child, 'exit'), [17, null]);
  await postgres.quiet('closes');
});

t.test('one statement outside a transaction outlives its process, unless the server looks', async (t) => {
  await postgres.query('CREATE TABLE outlived (how text)');
  for (const [how, options] of Object.entries({ plain: "''", guarded: 'OPTIONS' })) {
    const child = running(
      t,
      how,
      `import pg from 'pg';
       import { OPTIONS } from './database.mjs';
       const client = new pg.Client({ options: ${options} });
       await client.connect();
       await client.query("INSERT INTO outlived SELECT '${how}' FROM pg_sleep(2)");`,
    );
    await postgres.sessions(how, "wait_event = 'PgSleep'", 1);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await postgres.quiet(how);
  }
  t.strictSame(await postgres.query('SELECT how FROM outlived'), [{ how: 'plain' }]);
});
