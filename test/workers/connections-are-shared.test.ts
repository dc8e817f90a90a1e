import t from 'tap';
import { LedgerClient } from '../support/ledger-client.ts';
import { WorkersService } from '../support/workers-service.ts';

// Many processes, each of which has to start first.
t.setTimeout(120_000);

t.test('kept connections are shared, no worker has twice as many as another', async (t) => {
  const pool = await WorkersService.running(t, { workers: 2 });
  const clients = await Promise.all(Array.from({ length: 60 }, () => pool.connect()));
  const shares = new Map<number, number>();
  for (const client of clients) {
    const { pid } = JSON.parse((await client.get('/').response()).body);
    shares.set(pid, (shares.get(pid) ?? 0) + 1);
  }
  const [least = 0, most = 0] = [...shares.values()].sort((a, b) => a - b);
  t.equal(shares.size, 2);
  t.ok(most <= 2 * least, `${least} and ${most}`);
  pool.service.signal('SIGTERM');
  t.strictSame(await pool.service.exited, { code: 0, signal: null });
});

t.test('connections that are passed on are all answered, in a reload too', async (t) => {
  const pool = await WorkersService.running(t, { workers: 3 });
  // They hold on to the connections that they have, so that what is new has to be passed on.
  const kept = await Promise.all(Array.from({ length: 9 }, () => pool.connect()));
  const pids = new Set<number>();
  for (const client of kept) pids.add(JSON.parse((await client.get('/').response()).body).pid);
  t.equal(pids.size, 3);
  const fresh = LedgerClient.start({
    port: pool.port,
    connections: 6,
    headers: { Connection: 'close' },
  });
  await pool.reload();
  const ledger = await fresh.stop();
  t.ok(ledger.sent > 0);
  t.equal(ledger.lost, 0, ledger.toString());
  t.strictSame([...ledger.statuses.keys()], [200]);
  pool.service.signal('SIGTERM');
  t.strictSame(await pool.service.exited, { code: 0, signal: null });
});

/** The second worker stands still, for less than it is given, when it is to stop accepting. */
const SLOW_TO_CLOSE = `
const slot = Number(process.env.MASTER_AGENT_WORKER);
process.on('message', ({ name }) => {
  if (name !== 'closeQueue' || slot !== 1) return;
  console.log('stands still');
  const untilMs = performance.now() + 600;
  while (performance.now() < untilMs);
  console.log('goes on at ' + Date.now());
});
export default { routes(router) { router.get('/', (request, response) => response.end(String(slot))); } };
`;

t.test('no worker answers what it has held before all have stopped accepting', async (t) => {
  // A client that is answered opens its next connection at once, and the last to close would reset it.
  const pool = await WorkersService.running(t, { workers: 2, app: SLOW_TO_CLOSE });
  const { service } = pool;
  const clients = await Promise.all([pool.connect(), pool.connect()]);
  const slots: string[] = [];
  for (const client of clients) slots.push((await client.get('/').response()).body);
  t.strictSame(slots.sort(), ['0', '1']);
  service.signal('SIGTERM');
  await service.line('stands still');
  const answers = await Promise.all(
    clients.map(async (client) => {
      const { status } = await client.get('/').response();
      return { status, atMs: Date.now() };
    }),
  );
  const [, wentOnAt] = /goes on at (\d+)/.exec(await service.line('goes on at')) ?? [];
  for (const { status, atMs } of answers) {
    t.equal(status, 503);
    t.ok(atMs >= Number(wentOnAt), `answered at ${atMs}, and the second worker went on at ${wentOnAt}`);
  }
  t.strictSame(await service.exited, { code: 0, signal: null });
});
