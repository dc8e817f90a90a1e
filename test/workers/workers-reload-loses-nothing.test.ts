import t from 'tap';
import { LedgerClient } from '../support/ledger-client.ts';
import { ServiceProcess } from '../support/service-process.ts';
import { WorkersService } from '../support/workers-service.ts';

const answering = (text: string): string =>
  `export default {
    routes(router) {
      router.get('/', (_request, response) => response.end(${JSON.stringify(text)}));
    },
  };\n`;

for (const workers of [1, 2]) {
  t.test(
    `${workers} workers: a reload under load puts new code in place, and no request fails`,
    async (t) => {
      const pool = await WorkersService.running(t, {
        workers,
        app: answering('one'),
        env: { KEEP_ALIVE_TIMEOUT: '1' },
      });
      const { service, port } = pool;
      const old = await pool.pids(workers);
      const seen = new Set<string>();
      const onAnswer = ({ body }: { body: string }): void => void seen.add(body);
      const load = { port, connections: 4, perSecond: 100, timeoutMs: 60_000, onAnswer };
      const kept = LedgerClient.start(load);
      const fresh = LedgerClient.start({ ...load, headers: { Connection: 'close' } });
      const words = ['one', 'two', 'three'];
      for (const word of words.slice(1)) {
        pool.rewrite(answering(word));
        await pool.reload();
        t.equal((await pool.get()).body, word, 'whoever comes after the reload finds the new code');
      }
      const now = await pool.pids(workers);
      for (const ledger of [await kept.stop(), await fresh.stop()]) {
        t.ok(ledger.sent > 0);
        t.equal(ledger.lost, 0, ledger.toString());
        t.equal(ledger.refused.size, 0);
        t.strictSame([...ledger.statuses.keys()], [200]);
      }
      t.strictSame([...seen].sort(), words.sort());
      t.notOk(
        now.some((pid) => old.includes(pid)),
        'the old workers have left',
      );
      t.match(await service.statusWhen(() => true), {
        generation: 3,
        last_reload: { outcome: 'done', generation: 3 },
      });

      service.signal('SIGTERM');
      t.strictSame(await service.exited, { code: 0, signal: null });
    },
  );
}

t.test('what is in flight in an old worker is answered by it', async (t) => {
  const pool = await WorkersService.running(t, { workers: 1 });
  const { service } = pool;
  const [old] = await pool.pids(1);
  const idle = await pool.connect();
  t.equal(await pool.pidOf(idle), old);
  const held = (await pool.connect()).get('/hold/a');
  await service.line('holding a');
  await pool.reload();
  t.not(JSON.parse((await pool.get()).body).pid, old);

  const answer = await idle.get('/').response();
  t.equal(answer.status, 200, 'a connection that was open is still served');
  t.equal(JSON.parse(answer.body).pid, old);
  t.equal(answer.headers.connection, 'close', 'and asked to come back to somebody else');
  t.match(
    (await service.statusWhen(() => true)).workers?.find(({ pid }) => pid === old),
    { state: 'retiring' },
  );
  pool.open('a');
  const last = await held.response();
  t.match(last, { status: 200, headers: { connection: 'close' } });
  t.equal(JSON.parse(last.body).pid, old);
  t.notOk((await pool.pids(1)).includes(old ?? 0), 'then the old one leaves');
});

t.test('a reload reads the settings anew, and the command tells when it is done', async (t) => {
  const token = 'a token that is long enough'.replaceAll(' ', '-');
  const pool = await WorkersService.running(t, { workers: 1, dotenv: 'RETRY_AFTER=7\n' });
  const { service } = pool;
  pool.setDotenv(`RETRY_AFTER=9\nWORKERS=2\nADMIN_TOKEN=${token}\n`);
  const command = ServiceProcess.spawn(t, {
    args: ['reload'],
    cwd: pool.dir,
    stateDir: service.stateDir,
    env: { WORKERS: '1' },
  });
  t.strictSame(await command.exited, { code: 0, signal: null });
  t.match(command.output, /^Reloaded in \d+ ms: generation 2 serves$/);
  t.match(await service.statusWhen(() => true), { generation: 2, last_reload: { outcome: 'done' } });

  const held = (await pool.connect()).get('/hold/a');
  await service.line('holding a');
  const locked = await fetch(`http://127.0.0.1:${service.opsPort}/admin/emergency-shutdown`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
  });
  t.equal(locked.status, 200, 'the new token opens');
  t.equal((await pool.get()).headers['retry-after'], '9', 'the workers go by the new settings');
  pool.open('a');
  t.equal((await held.response()).status, 200);
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test('the number of workers can be changed by a reload', async (t) => {
  const pool = await WorkersService.running(t, { env: { WORKERS: undefined }, dotenv: 'WORKERS=1\n' });
  await pool.pids(1);
  pool.setDotenv('WORKERS=3\n');
  await pool.reload();
  await pool.pids(3);
  pool.setDotenv('WORKERS=1\n');
  await pool.reload();
  await pool.pids(1);
  t.equal(JSON.parse((await pool.get()).body).pid > 0, true);
});
