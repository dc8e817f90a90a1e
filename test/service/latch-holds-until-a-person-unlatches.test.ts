import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readHead } from '../../src/audit/head.ts';
import { verify } from '../../src/audit/verify.ts';
import { command, readRecords } from '../support/audit.ts';
import { running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const TOKEN = 'the-token-of-the-administrator';

t.test(
  'emergency: what is in flight completes, and it stays down over restarts until it is unlatched',
  async (t) => {
    const stateDir = tempDir(t);
    const file = join(stateDir, 'audit.ndjson');
    const latch = join(stateDir, 'emergency.json');
    const options = { stateDir, env: { ADMIN_TOKEN: TOKEN } };
    const service = await ServiceProcess.running(t, options);
    const held = (await RawClient.open(service.port)).get('/hold/a');
    await service.line('holding a');
    const asked = await fetch(`http://127.0.0.1:${service.port}/admin/emergency-shutdown`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${TOKEN}` },
      body: JSON.stringify({ reason: 'smoke in the "server" room' }),
    });
    t.equal(asked.status, 200);
    t.strictSame(await asked.json(), { status: 'shutdown_initiated' });
    t.match(JSON.parse(readFileSync(latch, 'utf8')), {
      by: '127.0.0.1',
      reason: 'smoke in the "server" room',
    });
    t.match(await (await RawClient.open(service.port)).get('/').response(), { status: 503 });
    service.release('a');
    t.match(await held.response(), { status: 200 });
    t.strictSame(await service.exited, { code: 0, signal: null });

    t.match(readRecords(file, 'admin'), [{ client: '127.0.0.1', result: 'accepted' }]);
    t.match(readRecords(file, 'emergency'), [{ reason: 'smoke in the "server" room', latched: true }]);
    t.match(
      readRecords(file, 'request').map(({ path, outcome }) => `${path} ${outcome}`),
      ['/admin/emergency-shutdown completed', '/hold/a completed'],
    );
    t.match(service.report(), { reason: 'emergency', in_flight_at_lock: 2, completed: 2 });

    const kept = readFileSync(latch, 'utf8');
    for (let start = 0; start < 2; start += 1) {
      const refused = ServiceProcess.spawn(t, options);
      t.strictSame(await refused.exited, { code: 75, signal: null });
      t.strictSame(refused.lines.slice(1), [
        `FATAL: Latched by an emergency shutdown at ${JSON.parse(kept).time} by 127.0.0.1 ` +
          '("smoke in the \\"server\\" room"). To start again: master-agent unlatch --reason "why it may start again"',
      ]);
    }
    t.equal(readRecords(file, 'open').length, 1, 'a start that is refused opens nothing');

    const noReason = await command(t, ['unlatch'], options);
    t.equal(noReason.code, 78);
    t.match(noReason.lines.at(-1), /^master-agent: Say why it may start again: --reason TEXT/);
    t.match(await command(t, ['unlatch', '--reason', '  '], options), { code: 78 });
    t.ok(existsSync(latch));

    const unlatched = await command(t, ['unlatch', '--reason', 'the fire is out'], options);
    t.equal(unlatched.code, 0);
    t.match(unlatched.lines[0], 'Latched at ');
    const beside = readdirSync(stateDir).filter((name) => /^emergency-.*\.json$/.test(name));
    t.equal(beside.length, 1);
    t.match(unlatched.lines.at(-1), `Unlatched. The old latch is kept in ${join(stateDir, beside[0] ?? '')}`);
    t.equal(readFileSync(join(stateDir, beside[0] ?? ''), 'utf8'), kept, 'the old latch is as it was');
    t.notOk(existsSync(latch));
    t.match(readRecords(file, 'unlatch'), [{ reason: 'the fire is out', by: /\S/, latch: JSON.parse(kept) }]);

    const again = await ServiceProcess.running(t, options);
    t.equal((await (await RawClient.open(again.port)).get('/').response()).status, 200);
    await again.stop();
    t.strictSame(await again.exited, { code: 0, signal: null });
    t.equal(verify([file], { head: readHead(file) }).finding, undefined);
    t.match(await command(t, ['unlatch'], options), { code: 0, lines: [/^Not latched/] });
  },
);

t.test('a program can latch its service, too', async (t) => {
  const stateDir = tempDir(t);
  const { service } = await running(t, { stateDir, config: { auditLog: undefined } });
  const report = await service.emergencyShutdown('the sensors disagree');
  t.match(report, { reason: 'emergency', exit_code: 0 });
  t.match(JSON.parse(readFileSync(join(stateDir, 'emergency.json'), 'utf8')), {
    by: 'the program',
    reason: 'the sensors disagree',
  });
  t.match(readRecords(join(stateDir, 'audit.ndjson'), 'emergency'), [{ by: 'the program', latched: true }]);
  await t.rejects(running(t, { stateDir, config: { auditLog: undefined } }), {
    exitCode: 75,
    message: /the sensors disagree/,
  });
});

t.test('a second emergency while the first one stops is on record, and changes nothing', async (t) => {
  const stateDir = tempDir(t);
  const { service } = await running(t, { stateDir, config: { auditLog: undefined } });
  void service.emergencyShutdown('first');
  const report = await service.emergencyShutdown('second');
  t.equal(report.reason, 'emergency');
  const reasons = readRecords(join(stateDir, 'audit.ndjson'), 'emergency').map(({ reason }) => reason);
  t.strictSame(reasons, ['first', 'second']);
});

t.test('a latch that cannot be read holds', async (t) => {
  for (const content of ['', '{', 'null', '{}', '[]', '{"time":1}', '\0\0\0']) {
    const stateDir = tempDir(t);
    writeFileSync(join(stateDir, 'emergency.json'), content);
    await t.rejects(running(t, { stateDir }), {
      exitCode: 75,
      message: 'at an unknown time by somebody ("the latch cannot be read")',
    });
  }
  const stateDir = tempDir(t);
  mkdirSync(join(stateDir, 'emergency.json'));
  t.strictSame(await ServiceProcess.spawn(t, { stateDir }).exited, { code: 75, signal: null }, 'a directory');
});

t.test('unlatch leaves the latch where it is when it cannot put that on record', async (t) => {
  const stateDir = tempDir(t);
  const latch = join(stateDir, 'emergency.json');
  writeFileSync(latch, JSON.stringify({ time: 'then', by: 'somebody', reason: 'a drill' }));
  const refused = await command(t, ['unlatch', '--reason', 'it was a drill'], {
    stateDir,
    env: { AUDIT_LOG: '/dev/full' },
  });
  t.equal(refused.code, 74);
  t.match(
    refused.lines.at(-1),
    /AUDIT_LOG: want a log that can be written, got "\/dev\/full": ENOSPC.* It stays latched/,
  );
  t.ok(existsSync(latch));
});
