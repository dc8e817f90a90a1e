import { appendFileSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { command, readRecords } from '../support/audit.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

t.test('after kill -9 the next start says so: in the log, the audit log, /status and /metrics', async (t) => {
  const stateDir = tempDir(t);
  const file = join(stateDir, 'audit.ndjson');
  const first = await ServiceProcess.running(t, { stateDir, env: { AUDIT_MODE: 'strict' } });
  t.equal((await (await RawClient.open(first.port)).get('/').response()).status, 200);
  first.signal('SIGKILL');
  await first.exited;
  const torn = '{"type":"request","time":"2026-';
  appendFileSync(file, torn);

  const second = await ServiceProcess.running(t, { stateDir });
  t.match(second.output, `(pid ${first.pid}, started `);
  t.match(second.output, 'ended without a shutdown');
  const aside = join(stateDir, readdirSync(stateDir).find((name) => name.includes('.torn-')) ?? '');
  t.match(
    second.output,
    `WARNING: The audit log was not closed by the run before this one; ${torn.length} torn bytes were set aside in ${aside}`,
  );
  t.equal(readFileSync(aside, 'utf8'), torn);
  t.match(readRecords(file, 'unclean_end'), [{ torn_bytes: torn.length, aside }]);
  const status = await second.statusWhen(() => true);
  t.match(status.last_shutdown, { unclean: true, pid: first.pid });
  t.match(status.audit, { unclean_end: { torn_bytes: torn.length, aside, missing: null } });
  const metrics = await (await second.operator('/metrics')).text();
  t.match(metrics, /^master_agent_last_shutdown_unclean 1$/m);
  t.match(metrics, /^master_agent_audit_unclean_end 1$/m);
  await second.stop();
  t.strictSame(await second.exited, { code: 0, signal: null });

  const third = await ServiceProcess.running(t, { stateDir });
  t.notMatch(third.output, 'WARNING');
  t.match((await third.statusWhen(() => true)).audit, { unclean_end: null });
  t.match(await (await third.operator('/metrics')).text(), /^master_agent_audit_unclean_end 0$/m);
  await third.stop();
  await third.exited;
  t.match(await command(t, ['verify-audit'], { stateDir }), { code: 0 });
});
