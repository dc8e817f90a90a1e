import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { completedLately } from '../../src/audit/completed.ts';
import { type Flight, LAYOUT, readFlight } from '../../src/backends/workers/flight-record.ts';
import { FLIGHT_FD } from '../../src/backends/workers/messages.ts';
import { WorkersService } from '../support/workers-service.ts';

// Many processes, each of which has to start first.
t.setTimeout(120_000);

/** What a process has noted; the file has no name, but its descriptor has one. */
function flightOf(pid: number): Flight {
  const fd = openSync(`/proc/${pid}/fd/${FLIGHT_FD}`, 'r');
  try {
    return readFlight(fd);
  } finally {
    closeSync(fd);
  }
}

/** Resolves when a process has noted so many. */
async function noted(pid: number, count: number): Promise<Flight> {
  for (;;) {
    const flight = flightOf(pid);
    if (flight.requests.size + flight.unnamed === count) return flight;
    await new Promise(setImmediate);
  }
}

const CUT =
  /Cut in-flight request: (\S+ \S+) after [\d.]+s \(working\), because worker \d+ ended by SIGKILL$/;

/** What a service's log, and its audit log, say was cut: the methods and paths, in the order of the alphabet. */
function cutOf({ service: { lines } }: WorkersService): string[] {
  return lines.flatMap((line) => CUT.exec(line)?.[1] ?? []).sort();
}

function cutRecordsOf(pool: WorkersService): string[] {
  const cut = pool.audit().filter(({ type }) => type === 'cut');
  return cut.map(({ method, path }) => `${method} ${path}`).sort();
}

async function stopped(t: Test, { service }: WorkersService): Promise<void> {
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
}

t.test('a worker that is stopped, then killed: exactly what it had is named', async (t) => {
  const pool = await WorkersService.running(t, { workers: 1 });
  const { service } = pool;
  const [victim = 0] = await pool.pids(1);
  t.equal((await pool.get('/')).status, 200);
  const long = `/hold/${'n'.repeat(LAYOUT.pathBytes)}`;
  const clients = [];
  for (const path of ['/hold/a?token=secret', '/hold/b', long, '/hold/over']) {
    const client = (await pool.connect()).get(path);
    clients.push(client);
    await service.line(`holding ${path.slice(6).replace(/\?.*/, '')}`);
  }
  const { requests } = await noted(victim, 4);
  pool.open('over');
  t.equal((await clients.at(-1)?.response())?.status, 200);
  await noted(victim, 3);
  process.kill(victim, 'SIGSTOP');
  process.kill(victim, 'SIGKILL');
  await service.line(
    `WARNING: Worker ${victim} had 3 requests in flight; what came in its last 5 ms is not known`,
  );
  await service.line('serves in place of the one that has ended');

  const expected = ['GET /hold/a', 'GET /hold/b', `GET ${long.slice(0, LAYOUT.pathBytes)}…`].sort();
  t.strictSame(cutOf(pool), expected);
  t.match(await (await service.operator('/metrics')).text(), /master_agent_requests_cut_total 3\n/);
  await stopped(t, pool);
  t.strictSame(cutRecordsOf(pool), expected);
  const ids = pool.audit().flatMap(({ type, id }) => (type === 'cut' ? [id] : []));
  t.strictSame(
    ids.sort(),
    [...requests.values()].flatMap(({ id, path }) => (path === '/hold/over' ? [] : [id])).sort(),
  );
  t.match(
    pool.audit().filter(({ type }) => type === 'worker_end'),
    [{ pid: victim, in_flight: 3, unnamed: 0 }],
  );
});

t.test(
  'it is named by the id that a proxy has given, also when an answered request had the same',
  async (t) => {
    const env = { TRUSTED_PROXIES: '127.0.0.1', AUDIT_MODE: 'strict' };
    const pool = await WorkersService.running(t, { workers: 1, env });
    const [victim = 0] = await pool.pids(1);
    const ask = async (path: string, id: string) =>
      (await pool.connect()).request('GET', path, { 'X-Request-Id': id });
    const long = 'x'.repeat(128);
    t.equal((await (await ask('/', 'given')).response()).headers['x-request-id'], 'given');
    await ask('/hold/a', 'given');
    await ask('/hold/b', long);
    await ask('/hold/c', 'not/an id');
    await noted(victim, 3);
    process.kill(victim, 'SIGKILL');
    await pool.service.line(`Worker ${victim} had 3 requests in flight`);
    await pool.pids(1);
    await stopped(t, pool);
    const idOf = (path: string): unknown =>
      pool.audit().find((record) => record.type === 'cut' && record.path === path)?.id;
    t.strictSame(['/hold/a', '/hold/b'].map(idOf), ['given', long]);
    t.match(idOf('/hold/c'), /^[0-9a-z]{6}-[0-9a-z]+$/);
    const [answered] = pool.audit().filter(({ type }) => type === 'request');
    t.match(answered, { id: 'given', own_id: /^[0-9a-z]{6}-/ });
    const run = String(answered?.own_id).slice(0, 7);
    const completed = await completedLately(join(pool.service.stateDir, 'audit.ndjson'), run);
    t.strictSame([...completed], [answered?.own_id]);
  },
);

t.test('past the slots the others are counted', async (t) => {
  const pool = await WorkersService.running(t, { workers: 1, env: { AUDIT_MAX_BYTES: '0' } });
  const { service } = pool;
  const [victim = 0] = await pool.pids(1);
  const perClient = 64;
  const clients = LAYOUT.slots / perClient + 1;
  const count = clients * perClient - 1;
  for (let client = 0; client < clients; client += 1) {
    const paths = Array.from({ length: perClient }, (_, n) => `/hold/${client}-${n}`);
    (await pool.connect()).write(paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`).join(''));
    await noted(victim, (client + 1) * perClient);
  }
  t.match(flightOf(victim), { unnamed: perClient });
  pool.open(`${clients - 1}-0`);
  t.match(await noted(victim, count), { unnamed: perClient - 1 }, 'one that has ended counts no more');
  process.kill(victim, 'SIGKILL');
  await service.line(
    `Worker ${victim} had ${count} requests in flight, ${perClient - 1} of them not named; what`,
  );
  await service.line('serves in place of the one that has ended');
  t.equal(new Set(cutOf(pool)).size, LAYOUT.slots);
  t.match(await (await service.operator('/metrics')).text(), `requests_cut_total ${count}\n`);
  await stopped(t, pool);
  t.strictSame(cutRecordsOf(pool), cutOf(pool));
  t.match(
    pool.audit().filter(({ type }) => type === 'worker_end'),
    [{ in_flight: count, unnamed: perClient - 1 }],
  );
});

/** Answers each path after a few milliseconds, and never what begins with `/long`. */
const APP = `
import { setTimeout as delay } from 'node:timers/promises';
export default {
  routes(router) {
    router.get('/n/:n', async (request, response, { params }) => {
      await delay(Number(params.n) % 12);
      response.end('done');
    });
    router.get('/long/:n', () => undefined);
  },
};\n`;

for (const mode of ['batched', 'strict']) {
  t.test(`killed under load, ${mode}: nothing is told as both answered and cut`, async (t) => {
    const pool = await WorkersService.running(t, { workers: 1, app: APP, env: { AUDIT_MODE: mode } });
    const { service } = pool;
    const long: string[] = [];
    const answeredMs = new Map<string, number>();
    let asked = 0;
    /** A client in a closed loop, until its connection breaks. */
    async function ask(): Promise<void> {
      const client = await pool.connect();
      for (;;) {
        asked += 1;
        const path = `/n/${asked}`;
        client.get(path);
        await client.response();
        answeredMs.set(`GET ${path}`, performance.now());
      }
    }

    for (let round = 0; round < 3; round += 1) {
      const [victim = 0] = await pool.pids(1);
      for (let n = 0; n < 3; n += 1) {
        const path = `/long/${round}-${n}`;
        (await pool.connect()).get(path);
        long.push(`GET ${path}`);
      }
      while (flightOf(victim).requests.size < 3) await new Promise(setImmediate);
      const clients = Array.from({ length: 12 }, () => ask().catch(() => undefined));
      const enough = answeredMs.size + 100;
      while (answeredMs.size < enough) await new Promise(setImmediate);
      const killedMs = performance.now();
      process.kill(victim, 'SIGKILL');
      await Promise.all(clients);
      await service.line(`Worker ${victim} had`);
      await pool.pids(1);
      // What was answered at the very end has left the process a moment before it was struck out.
      for (const [path, atMs] of answeredMs) if (atMs > killedMs - 50) answeredMs.delete(path);
    }
    await stopped(t, pool);

    const cut = cutRecordsOf(pool);
    t.strictSame(cut, cutOf(pool), 'log and audit log agree');
    t.strictSame(
      cut.filter((path) => path.startsWith('GET /long/')),
      long.sort(),
      'what is known to be cut is',
    );
    t.strictSame(
      cut.filter((path) => answeredMs.has(path)),
      [],
      'no answer that its client has is told as cut',
    );
    const completed = new Set(
      pool.audit().flatMap(({ outcome, id }) => (outcome === 'completed' ? [id] : [])),
    );
    const both = pool.audit().filter(({ type, id }) => type === 'cut' && completed.has(id));
    t.strictSame(both, [], 'none is on record as both');
  });
}
