import { spawnSync } from 'node:child_process';
import { chmodSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { io } from 'socket.io-client';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import { blocksOf, installExample, installInto } from '../support/documents.ts';
import { assertRefused } from '../support/drain.ts';
import { Postgres } from '../support/postgres.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { ServerProcess } from '../support/server-process.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

/** Of a stop that waits for no deadline (30 s), on a busy machine. */
const LONGEST_SECONDS = 5;

function manifestOf(dir: string): Manifest {
  return JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8'));
}

function serving(t: Test, app: string, cwd: string): Promise<ServiceProcess> {
  return ServiceProcess.running(t, { args: [app], cwd });
}

/** Stops it while `slow` is in flight: that is answered whole, what comes meanwhile is refused, and it exits 0. */
async function stopsWhole(t: Test, service: ServiceProcess, slow: string, body: unknown): Promise<void> {
  const client = (await RawClient.open(service.port)).get(slow);
  const [path] = slow.split('?');
  await service.statusWhen(({ in_flight }) => in_flight.oldest.some((request) => request.path === path));
  await service.stop();
  const late = await RawClient.open(service.port);
  assertRefused(t, await late.get('/orders').response());
  const answer = await client.response();
  t.equal(answer.status, 200);
  t.strictSame(JSON.parse(answer.body), body, 'the answer in flight is complete');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.equal(service.report().in_flight_at_lock, 1, 'no earlier request was held for in flight');
}

async function openChat(
  port: number,
): Promise<{ next(): Promise<string>; send(text: string): void; closed: Promise<number> }> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/chat`);
  const closed = new Promise<number>((resolve) => socket.once('close', resolve));
  await new Promise((resolve) => socket.once('open', resolve));
  return {
    next: () => new Promise((resolve) => socket.once('message', (data: Buffer) => resolve(data.toString()))),
    send: (text) => socket.send(text),
    closed,
  };
}

/** A copy of an example, with what its package.json names. */
function copied(t: Test, name: string): string {
  const dir = tempDir(t);
  installExample(name, dir);
  const { devDependencies = {} } = manifestOf(ROOT);
  for (const [dependency, range] of Object.entries(manifestOf(dir).dependencies ?? {})) {
    if (dependency !== 'master-agent')
      t.equal(range, devDependencies[dependency], `${dependency} as it is tested`);
  }
  return dir;
}

/** An example that needs PostgreSQL. */
async function withDatabase(t: Test, name: 'postgres' | 'jobs', cwd: string): Promise<void> {
  const postgres = await Postgres.start();
  t.teardown(() => postgres.end());
  const service = await ServiceProcess.running(t, { args: ['app.mjs'], cwd, env: postgres.env });
  const post = async (path: string, body: string): Promise<unknown> => {
    const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': 'mine' };
    return (await fetch(`http://127.0.0.1:${service.port}${path}`, { method: 'POST', headers, body })).json();
  };
  if (name === 'postgres') {
    const made = await post('/transfers', '{"payer":1,"payee":2,"amount":5}');
    t.match(made, { key: 'mine', payer: 1, payee: 2, amount: 5, xid: /^\d+$/ });
    t.strictSame(await post('/transfers', '{"payer":1,"payee":2,"amount":5}'), made, 'made once');
    const accounts = await fetch(`http://127.0.0.1:${service.port}/accounts`);
    t.match(await accounts.json(), { accounts: [{ id: 1, balance: 999_995 }, { balance: 1_000_005 }] });
    return stopsWhole(t, service, '/report?seconds=2.5', { accounts: 10, total: 10_000_000 });
  }
  t.strictSame(await post('/jobs', '{"seconds":2.5}'), { id: 1, seconds: 2.5 });
  await service.statusWhen(({ in_flight }) => in_flight.holds.some(({ name }) => name === 'job 1'));
  await service.stop();
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.equal(service.report().in_flight_at_lock, 1, 'the stop waits for the job');
  t.strictSame(await postgres.query('SELECT job FROM results'), [{ job: 1 }], 'which is done');
}

// The one in Python: guard-with-uvicorn.test.ts.
for (const name of readdirSync(join(ROOT, 'examples')).filter((name) => name !== 'fastapi')) {
  t.test(`examples/${name} serves and stops without losing anything`, async (t) => {
    const cwd = copied(t, name);
    if (name === 'postgres' || name === 'jobs') return withDatabase(t, name, cwd);
    const service = await serving(t, 'app.mjs', cwd);
    const ask = (path: string, init?: RequestInit): Promise<Response> =>
      fetch(`http://127.0.0.1:${service.port}${path}`, init);
    if (name === 'websocket') {
      const chat = await openChat(service.port);
      const heard = chat.next();
      chat.send('hello');
      t.equal(await heard, 'hello');
      t.strictSame(await (await ask('/members')).json(), { members: 1 });
      service.signal('SIGTERM');
      t.equal(await chat.closed, 1012, 'it is told to come back');
      t.strictSame(await service.exited, { code: 0, signal: null });
      const again = await serving(t, 'app.mjs', cwd);
      return stopsWhole(t, again, '/report?ms=2500', { members: 0 });
    }
    const headers = { 'Content-Type': 'application/json' };
    const placed = await ask('/orders', { method: 'POST', headers, body: '{"item":"safe"}' });
    t.equal(placed.status, 201);
    t.match(await (await ask('/orders')).json(), { orders: [{ item: 'padlock' }, { id: 2, item: 'safe' }] });
    t.equal((await ask('/orders', { method: 'POST', headers, body: '{' })).status, 400);
    await stopsWhole(t, service, '/report?ms=2500', { orders: 2 });
  });
}

for (const name of ['postgres', 'jobs']) {
  t.test(`make run-${name} serves it, and Ctrl-C ends it with its database`, async (t) => {
    const dir = tempDir(t);
    // As root, the database is run by another user.
    chmodSync(dir, 0o755);
    const env = {
      ...{ HOST: '127.0.0.1', PORT: '0', OPS_PORT: '0', LOG_FORMAT: 'text', TMPDIR: dir },
      ...{ STATE_DIR: join(dir, 'state'), PID_FILE: join(dir, 'state/pid') },
    };
    // What is built is not to be built again, whatever its age.
    const args = ['--old-file=dist/main.js', `run-${name}`];
    const service = await ServerProcess.serving('make', args, { env, group: true });
    t.teardown(() => service.kill());
    t.equal(
      (await fetch(`http://127.0.0.1:${service.port}/${name === 'jobs' ? 'jobs' : 'accounts'}`)).status,
      200,
    );
    t.ok(readdirSync(dir).some((file) => file.startsWith('postgres-')));
    service.signalAll('SIGINT');
    await service.exited;
    t.match(service.output, 'Service shutdown complete');
    t.notOk(
      readdirSync(dir).some((file) => file.startsWith('postgres-')),
      'nothing is left of it',
    );
  });
}

/** The blocks of docs/application.md that are modules, in one directory. */
function documented(t: Test): string {
  const dir = tempDir(t);
  for (const { note, text } of blocksOf('docs/application.md').filter(({ note }) => note.endsWith('.mjs')))
    writeFileSync(join(dir, note), text);
  const packages = Object.keys(manifestOf(ROOT).devDependencies ?? {});
  installInto(dir, ['master-agent', 'pino', ...packages.filter((name) => !name.startsWith('@types/'))]);
  return dir;
}

for (const name of ['express', 'koa', 'fastify', 'hono', 'nest']) {
  t.test(`the ${name} application of the documents serves and stops without losing anything`, async (t) => {
    const service = await serving(t, `${name}.mjs`, documented(t));
    const answer = await fetch(`http://127.0.0.1:${service.port}/orders`);
    t.strictSame(await answer.json(), { orders: [] });
    await stopsWhole(t, service, '/slow', { slow: true });
  });
}

t.test(
  'the WebSocket and the Socket.IO application tell their clients of a stop, which does not wait',
  async (t) => {
    const cwd = documented(t);
    const service = await serving(t, 'ws.mjs', cwd);
    const chat = await openChat(service.port);
    const heard = chat.next();
    chat.send('hello');
    t.equal(await heard, 'echo hello');
    service.signal('SIGTERM');
    t.equal(await chat.closed, 1012);
    t.strictSame(await service.exited, { code: 0, signal: null });
    t.ok(service.report().duration_seconds < LONGEST_SECONDS, 'nothing waits for a deadline');

    const other = await serving(t, 'socket.io.mjs', cwd);
    const socket = io(`http://127.0.0.1:${other.port}`, { transports: ['websocket'], reconnection: false });
    t.teardown(() => socket.close());
    const gone = new Promise((resolve) => socket.once('disconnect', resolve));
    t.equal(await socket.timeout(60_000).emitWithAck('echo', 'hello'), 'echo hello');
    other.signal('SIGTERM');
    t.equal(await gone, 'io server disconnect');
    t.strictSame(await other.exited, { code: 0, signal: null });
    t.match(other.report(), { cut: [], exit_code: 0 });
    t.ok(other.report().duration_seconds < LONGEST_SECONDS, 'nor here');
  },
);

t.test('the first application, the embedded service and the watcher of the documents work', async (t) => {
  const cwd = documented(t);
  const service = await serving(t, 'app.mjs', cwd);
  const orders = `http://127.0.0.1:${service.port}/orders`;
  const headers = { 'Content-Type': 'application/json' };
  t.equal((await fetch(orders, { method: 'POST', headers, body: '{"item":"safe"}' })).status, 201);
  t.strictSame(await (await fetch(`${orders}/1`)).json(), { id: 1, item: 'safe' });
  t.equal((await fetch(`${orders}/2`)).status, 404);
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });

  for (const program of ['embed.mjs', 'embed-log.mjs']) {
    const { status, stderr } = spawnSync(process.execPath, [program], { cwd, encoding: 'utf8' });
    t.equal(status, 0, stderr);
  }
  const watched = await serving(t, 'watch.mjs', cwd);
  const answer = await fetch(`http://127.0.0.1:${watched.port}/seen`);
  t.strictSame(await answer.json(), [{ event: 'start', id: answer.headers.get('x-request-id') }]);
});

t.test('the application in the README works', async (t) => {
  const cwd = tempDir(t);
  const [block] = blocksOf('README.md').filter(({ note }) => note === 'app.mjs');
  writeFileSync(join(cwd, 'app.mjs'), block?.text ?? '');
  installInto(cwd, ['express']);
  const service = await serving(t, 'app.mjs', cwd);
  const answers = ['/hello/you', '/orders'].map((path) => fetch(`http://127.0.0.1:${service.port}${path}`));
  const bodies = await Promise.all(answers.map(async (answer) => (await answer).json()));
  t.strictSame(bodies, [{ hello: 'you' }, { orders: [] }]);
});
