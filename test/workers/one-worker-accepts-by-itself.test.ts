import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { addressOf, holdSocket } from '../../src/platform/listen.ts';
import { LedgerClient } from '../support/ledger-client.ts';
import { WorkersService } from '../support/workers-service.ts';

// Many processes, each of which has to start first.
t.setTimeout(120_000);

t.test('one worker takes connections also while its controller stands still', async (t) => {
  const pool = await WorkersService.running(t, { workers: 1 });
  const { service } = pool;
  const [pid] = await pool.pids(1);
  service.signal('SIGSTOP');
  try {
    for (let round = 0; round < 3; round += 1) t.equal(JSON.parse((await pool.get()).body).pid, pid);
  } finally {
    service.signal('SIGCONT');
  }
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test('where Node cannot hold a socket for others, the controller accepts', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'older-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const preload = join(dir, 'preload.mjs');
  writeFileSync(preload, "import net from 'node:net';\ndelete net._createServerHandle;\n");
  const pool = await WorkersService.running(t, {
    workers: 1,
    env: { NODE_OPTIONS: `--import=${preload}` },
  });
  const { service } = pool;
  const [pid] = await pool.pids(1);
  t.equal(JSON.parse((await pool.get()).body).pid, pid);
  await pool.reload();
  t.not(JSON.parse((await pool.get()).body).pid, pid);
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test(
  'when the controller is gone, the address is free at once, and what is in flight is answered',
  async (t) => {
    const pool = await WorkersService.running(t, { workers: 1 });
    const held = (await pool.connect()).get('/hold/a');
    await pool.service.line('holding a');
    pool.service.signal('SIGKILL');
    await pool.service.line('The controller is gone');
    const next = createServer().listen(pool.port, '127.0.0.1');
    await once(next, 'listening');
    next.close();
    pool.open('a');
    t.equal((await held.response()).status, 200);
  },
);

t.test('a reload to two workers, and back to one, loses nothing', async (t) => {
  const pool = await WorkersService.running(t, { env: { WORKERS: undefined }, dotenv: 'WORKERS=1\n' });
  const { service, port } = pool;
  await pool.pids(1);
  const fresh = LedgerClient.start({ port, connections: 3, headers: { Connection: 'close' } });
  for (const workers of [2, 1]) {
    pool.setDotenv(`WORKERS=${workers}\n`);
    await pool.reload();
    const pids = await pool.pids(workers);
    const seen = new Set<number>();
    while (seen.size < workers) seen.add(JSON.parse((await pool.get()).body).pid);
    t.strictSame([...seen].sort(), pids.sort(), 'each of them is given some, and nobody else');
  }
  const ledger = await fresh.stop();
  t.ok(ledger.sent > 0);
  t.equal(ledger.lost, 0, ledger.toString());
  t.strictSame([...ledger.statuses.keys()], [200]);
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test('an address that is taken cannot be held, and is named', async (t) => {
  const held = await holdSocket('127.0.0.1', 0);
  t.ok(held);
  held?.close();
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const port = addressOf(server)?.port ?? 0;
  await t.rejects(holdSocket('127.0.0.1', port), {
    message: new RegExp(
      `^PORT: want a free port, got 127.0.0.1:${port}, which process ${process.pid} \\(.*\\) listens on$`,
    ),
  });
  await t.rejects(holdSocket('192.0.2.1', 0), { message: /^HOST: want an address of this machine/ });
  server.close();
});
