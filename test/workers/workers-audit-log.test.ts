import { mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { verify } from '../../src/audit/verify.ts';
import { tempDir } from '../support/service-process.ts';
import { WorkersService } from '../support/workers-service.ts';

t.test('what several workers write into one log verifies, also when it was rotated', async (t) => {
  const pool = await WorkersService.running(t, { env: { KEEP_ALIVE_TIMEOUT: '1' } });
  const { service } = pool;
  const file = join(service.stateDir, 'audit.ndjson');
  const ask = async (): Promise<void> => {
    for (let round = 0; round < 10; round += 1) t.equal((await pool.get()).status, 200);
  };
  await ask();
  t.equal((await verify([file])).finding, undefined, 'while it is written');
  renameSync(file, `${file}.1`);
  await pool.reload();
  await ask();
  await pool.pids();
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });

  const verdict = await verify([`${file}.1`, file]);
  t.equal(verdict.finding, undefined);
  t.equal(verdict.chains, 5, 'the supervisor and two generations of two workers');
  t.match(pool.audit().at(-1), { type: 'state', state: 'stopped' });
});

t.test('when a worker loses the audit log, the whole service stops', async (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'audit'));
  const pool = await WorkersService.running(t, { env: { AUDIT_LOG: join(dir, 'audit/log.ndjson') } });
  const { service } = pool;
  const idle = await Promise.all([pool.connect(), pool.connect()]);
  for (const client of idle) t.equal((await client.get('/').response()).status, 200);
  // With its directory gone the log cannot be continued: the next who writes finds out.
  renameSync(join(dir, 'audit'), join(dir, 'gone'));
  const asked = (async () => {
    while (!service.output.includes('Service state: STOPPING')) await idle[0]?.get('/').response();
  })().catch(() => undefined);
  await service.line('Service state: STOPPING');
  await asked;
  t.strictSame(await service.exited, { code: 74, signal: null });
  t.match(service.output, 'The audit log is lost. Initiating graceful shutdown (fail-safe)...');
  t.notMatch(service.output, 'is replaced');
  t.match(service.report(), { reason: 'audit', exit_code: 74 });
});
