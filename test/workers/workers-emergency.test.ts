import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { assertRefused } from '../support/drain.ts';
import { count, WorkersService } from '../support/workers-service.ts';

const TOKEN = 'a-token-that-is-long-enough';

for (const door of ['a worker', 'the operator'] as const) {
  t.test(
    `an emergency shutdown at the door of ${door} locks all workers and latches the service`,
    async (t) => {
      const env = { ADMIN_TOKEN: TOKEN, SHUTDOWN_DELAY: '3600' };
      const pool = await WorkersService.running(t, { env });
      const { service } = pool;
      const idle = await Promise.all([pool.connect(), pool.connect()]);
      const pids = await Promise.all(idle.map((client) => pool.pidOf(client)));
      t.equal(new Set(pids).size, 2);
      const held = (await pool.connect()).get('/hold/a');
      await service.line('holding a');

      const port = door === 'a worker' ? service.port : service.opsPort;
      const answer = await fetch(`http://127.0.0.1:${port}/admin/emergency-shutdown`, {
        method: 'POST',
        headers: { authorization: `Bearer ${TOKEN}` },
        body: '{"reason":"a drill"}',
      });
      t.equal(answer.status, 200);
      t.strictSame(await answer.json(), { status: 'shutdown_initiated' });
      await service.line('Service state: STOPPING');
      for (const client of idle) assertRefused(t, await client.get('/').response());
      pool.open('a');
      t.equal((await held.response()).status, 200, 'what is in flight is completed');
      t.strictSame(await service.exited, { code: 0, signal: null });

      t.match(service.report(), { reason: 'emergency', exit_code: 0 });
      t.match(service.output, 'Emergency shutdown. Initiating graceful shutdown (fail-safe)...');
      t.notMatch(service.output, 'is replaced');
      t.equal(count(service.lines, 'Latched: '), 1);
      const latch = JSON.parse(readFileSync(join(service.stateDir, 'emergency.json'), 'utf8'));
      t.match(latch, { by: '127.0.0.1', reason: 'a drill' });
      t.match(
        pool.audit().filter(({ type }) => type === 'emergency'),
        [{ by: '127.0.0.1', reason: 'a drill', latched: true }],
      );

      const again = WorkersService.spawn(t, { env: { ...env, STATE_DIR: service.stateDir } });
      t.strictSame(await again.service.exited, { code: 75, signal: null }, 'it stays down');
    },
  );
}
