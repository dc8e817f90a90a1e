import t from 'tap';
import { LedgerClient } from '../support/ledger-client.ts';
import { count, WorkersService } from '../support/workers-service.ts';

t.test('of fifty reloads at once, one runs and one more follows', async (t) => {
  const pool = await WorkersService.running(t, { env: { KEEP_ALIVE_TIMEOUT: '1' } });
  const { service, port } = pool;
  await pool.pids();
  const load = [
    LedgerClient.start({ port, connections: 5, perSecond: 200 }),
    LedgerClient.start({ port, connections: 5, perSecond: 200, headers: { Connection: 'close' } }),
  ];
  service.signal('SIGHUP');
  await service.line('Received signal 1. Reloading...');
  for (let index = 1; index < 50; index += 1) service.signal('SIGHUP');
  await service.line('Reloaded: generation 3 serves');
  const pids = await pool.pids();
  t.equal(pids.length, 2, 'everybody else has left');
  for (const client of load) {
    const ledger = await client.stop();
    t.equal(ledger.lost, 0, ledger.toString());
    t.equal(ledger.refused.size, 0);
    t.strictSame([...ledger.statuses.keys()], [200]);
  }
  t.equal(count(service.lines, 'Reloaded: generation'), 2);
  t.equal((await service.statusWhen(() => true)).generation, 3);
});
