import t from 'tap';
import { LedgerClient } from '../support/ledger-client.ts';
import { Clients, PROXIES, Replica } from '../support/replicas.ts';

const CLIENTS = 16;
const ADMIN_TOKEN = 'the-token-of-the-administrator';

for (const [name, start] of Object.entries(PROXIES)) {
  t.test(`behind ${name}: an emergency shutdown of one replica is no error to a client`, async (t) => {
    const a = await Replica.running(t, { ADMIN_TOKEN });
    const b = await Replica.running(t, { ADMIN_TOKEN });
    const load = new Clients(await start(t, [a, b]), CLIENTS);
    await load.served(100);
    const asked = await fetch(`http://127.0.0.1:${a.opsPort}/admin/emergency-shutdown`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
    });
    t.equal(asked.status, 200);
    t.strictSame(await a.service.exited, { code: 0, signal: null });

    await load.served(200);
    const { posts, errors } = await load.stop();
    t.strictSame(errors, []);
    t.ok(a.service.report().rejected > 0, 'the lock was met, and what it refused went to the other one');
    await b.stop();
    t.equal(a.admitted('POST') + b.admitted('POST'), posts, 'each POST was done once');
  });

  t.test(`behind ${name}: a POST that a killed replica has begun is not sent again`, async (t) => {
    const a = await Replica.running(t);
    const b = await Replica.running(t);
    const port = await start(t, [a, b]);
    const answer = LedgerClient.once({
      ...{ port, method: 'POST', path: '/ignore/one', body: '{"order":17}' },
      ...{ headers: { 'Content-Type': 'application/json' }, timeoutMs: 20_000 },
    });
    const holding = (replica: Replica) => replica.service.line('holding one').then(() => replica);
    const holder = await Promise.any([holding(a), holding(b)]);
    const other = holder === a ? b : a;
    holder.service.signal('SIGKILL');
    const { status } = await answer;
    t.equal(status, 502, 'the client is told that nobody knows');
    await other.stop();
    t.notMatch(other.service.output, 'holding one');
    // So that nothing of this test still waits for its line.
    await Promise.allSettled([holding(a), holding(b)]);
  });
  t.test(`behind ${name}: the administrator's routes cannot be reached through the proxy`, async (t) => {
    const a = await Replica.running(t, { ADMIN_TOKEN });
    const b = await Replica.running(t, { ADMIN_TOKEN });
    const port = await start(t, [a, b]);
    for (const path of [
      '/admin/emergency-shutdown',
      '/%61dmin/emergency-shutdown',
      '/admin%2Fanything',
      '/admin',
    ]) {
      const { status } = await fetch(`http://127.0.0.1:${port}${path}`, {
        method: 'POST',
        headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
      });
      t.equal(status, 403, path);
    }
    t.equal((await fetch(`http://127.0.0.1:${port}/administrate`)).status, 404, 'other routes pass');
    for (const replica of [a, b]) {
      await replica.stop();
      t.notMatch(replica.service.output, "Administrator's route used");
    }
  });
}
