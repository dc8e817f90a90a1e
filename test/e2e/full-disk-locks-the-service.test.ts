import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readHead } from '../../src/audit/head.ts';
import { verify } from '../../src/audit/verify.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess, type SpawnOptions } from '../support/service-process.ts';
import { SmallDisk } from '../support/small-disk.ts';

t.setTimeout(240_000);

const TOKEN = 'the-token-of-the-administrator';
const ADMIN = { method: 'POST', headers: { Authorization: `Bearer ${TOKEN}` } };
const MODES = ['batched', 'strict'] as const;

/** Its directories are not the disk's own, which cannot be removed. */
function onDisk(disk: SmallDisk, mode: string): SpawnOptions {
  return { stateDir: join(disk.dir, 'state'), env: { AUDIT_MODE: mode, ADMIN_TOKEN: TOKEN } };
}

for (const mode of MODES) {
  t.test(`${mode}: a disk that fills up while serving`, async (t) => {
    const disk = SmallDisk.mount(t);
    const options = onDisk(disk, mode);
    const service = await ServiceProcess.running(t, options);
    const held = (await RawClient.open(service.port)).get('/hold/a');
    await service.line('holding a');
    disk.fill();
    const client = await RawClient.open(service.port);
    // Until a record meets the full disk: in the room that its last page has there may be some more.
    while (!service.output.includes('The audit log cannot be written')) {
      client.get('/');
      if ((await client.response().catch(() => undefined))?.status !== 200) break;
    }
    await service.line('ERROR: The audit log cannot be written: ');
    await service.line('INFO: The audit log is lost. Initiating graceful shutdown (fail-safe)...');
    await service.line('Service state: STOPPING - Rejecting new requests (fail-safe mode).');
    const late = (await RawClient.open(service.port)).get('/');
    t.match(await late.response(), { status: 503 });

    service.release('a');
    const answer = await held.response().catch(() => undefined);
    // In strict mode an answer that cannot be put on record does not leave.
    t.equal(answer?.status, mode === 'strict' ? undefined : 200);
    t.strictSame(await service.exited, { code: 74, signal: null });
    t.match(
      service.output,
      'WARNING: Not in the audit log: {"type":"state"',
      'what it cannot take is in the log',
    );
    t.match(service.output, 'ERROR: The audit log could not be written to its end');
    t.notMatch(service.output, 'Internal error');

    for (let start = 0; start < 2; start += 1) {
      const refused = ServiceProcess.spawn(t, options);
      t.strictSame(await refused.exited, { code: 74, signal: null }, 'it will not start before it can write');
      const fatal = refused.lines.filter((line) => line.startsWith('FATAL'));
      t.equal(fatal.length, 1);
      t.match(fatal[0], /want a (log|directory) that can be written, got ".*": .*/);
    }
    const left = readdirSync(options.stateDir ?? '').filter((name) => /torn|\.\d+$/.test(name));
    t.strictSame(left, [], 'and what it had begun is not left behind');

    disk.free();
    const again = await ServiceProcess.running(t, options);
    await again.stop();
    t.strictSame(await again.exited, { code: 0, signal: null });
    const file = join(options.stateDir ?? '', 'audit.ndjson');
    t.equal(verify([file], { head: readHead(file) }).finding, undefined);
  });

  t.test(`${mode}: SIGTERM on a full disk`, async (t) => {
    const disk = SmallDisk.mount(t);
    const service = await ServiceProcess.running(t, onDisk(disk, mode));
    // In flight at the signal is more than the room that the log's last page still has.
    const names = ['a', 'b', 'c', 'd', 'e'].map((letter) => letter.repeat(1_500));
    const held = await Promise.all(
      names.map(async (name) => (await RawClient.open(service.port)).get(`/hold/${name}`)),
    );
    for (const name of names) await service.line(`holding ${name}`);
    disk.fill();
    await service.stop();
    for (const name of names) service.release(name);
    for (const client of held) await client.ended;
    t.strictSame(await service.exited, { code: 74, signal: null });
    t.match(service.output, 'WARNING: Not in the audit log: ');
  });

  for (const door of ['service', 'operator'] as const) {
    t.test(`${mode}: an emergency shutdown at the ${door}'s door on a full disk`, async (t) => {
      const disk = SmallDisk.mount(t);
      const options = onDisk(disk, mode);
      const service = await ServiceProcess.running(t, options);
      disk.fill();
      const port = door === 'service' ? service.port : service.opsPort;
      const answer = await fetch(`http://127.0.0.1:${port}/admin/emergency-shutdown`, {
        ...ADMIN,
        body: JSON.stringify({ reason: 'a drill' }),
      });
      t.equal(answer.status, 200);
      t.strictSame(await answer.json(), { status: 'shutdown_initiated', latched: false });
      await service.line('The latch could not be kept in ');
      t.match(service.output, 'Nothing prevents a restart');
      t.strictSame(await service.exited, { code: 74, signal: null });
      t.notOk(existsSync(join(options.stateDir ?? '', 'emergency.json')));
      // In the room that the log's last page has there may be a place for it.
      const log = readFileSync(join(options.stateDir ?? '', 'audit.ndjson'), 'utf8');
      t.match(`${log}${service.output}`, /(^|Not in the audit log: ){"type":"emergency".*"latched":false/m);
      t.match(service.output, 'ERROR: The audit log cannot be written: ENOSPC');
    });
  }
}
