import type { Test } from 'tap';
import t from 'tap';
import { MANAGE, STATE_DIR, SystemdBox } from '../support/systemd-box.ts';

const TOKEN = 'correct-horse-battery-staple';
const SOCKET = 'master-agent.socket';

const box = await SystemdBox.withService(t, { ADMIN_TOKEN: TOKEN });

const start = () => box.run('systemctl', 'start', 'master-agent');
const emergency = () =>
  box.curl(
    '/admin/emergency-shutdown',
    ...['--request', 'POST', '--header', `Authorization: Bearer ${TOKEN}`, '--data', '{"reason":"a drill"}'],
  );

/** The journal says so when systemd has decided; then it will not start it by itself any more. */
async function staysDown(t: Test, status: string): Promise<void> {
  t.equal(await box.property('ActiveState'), 'failed');
  t.equal(await box.property('ExecMainStatus'), status);
  t.equal(await box.property('NRestarts'), '0');
}

t.test('bad configuration is not started again', async (t) => {
  await box.settings({ SHUTDOWN_TIMEOUT: 'soon', PORT: 'http' });
  const mark = box.mark();
  t.not((await start()).code, 0);
  await staysDown(t, '78');
  t.equal((await box.line('SHUTDOWN_TIMEOUT: want a number of seconds', mark)).priority, 2);
  await box.line('PORT: want a port', mark);
});

t.test('an application that fails at its start is tried again', async (t) => {
  await box.settings({ APP: '/opt/master-agent/app/broken.mjs' });
  await box.write('/opt/master-agent/app/broken.mjs', 'throw new Error("the database is away")');
  const mark = box.mark();
  t.not((await start()).code, 0);
  await box.line('the database is away', mark);
  await box.line('Scheduled restart job', mark);
  await box.ok('cp', '/checkout/test/fixtures/box-app.mjs', '/opt/master-agent/app/broken.mjs');
  await box.untilProperty('ActiveState', 'active');
  t.match(await box.curl('/version'), { stdout: 'one' }, 'until the cause is gone');
  await box.ok('systemctl', 'stop', 'master-agent');
});

t.test('a stop that was ordered is not undone', async (t) => {
  await box.settings({ ADMIN_TOKEN: TOKEN });
  await box.ok('systemctl', 'start', 'master-agent');
  await box.ok('kill', '-TERM', await box.property('MainPID'));
  await box.untilProperty('ActiveState', 'inactive');
  t.equal(await box.property('NRestarts'), '0');
});

t.test('after an emergency shutdown it stays down, over a start too, until it is unlatched', async (t) => {
  await box.ok('systemctl', 'start', 'master-agent');
  t.match(await emergency(), { stdout: '{"status":"shutdown_initiated"}' });
  await box.untilProperty('ActiveState', 'inactive');
  const mark = box.mark();
  t.not((await start()).code, 0);
  await staysDown(t, '75');
  const line = await box.line('Latched by an emergency shutdown', mark);
  t.match(line.text, 'a drill');
  t.equal(line.priority, 2);
  t.match(await box.run(MANAGE, 'start'), { code: 1, stderr: /manage-service\.sh unlatch/ });

  t.match(await box.run(MANAGE, 'unlatch', '--reason', 'the drill is over'), { code: 0 });
  t.match(await start(), { code: 0 });
  t.match(await box.curl('/version'), { stdout: 'one' });
  t.equal(
    (await box.sh(`find ${STATE_DIR} ! -user master-agent`)).trim(),
    '',
    "nothing in its state is another's",
  );
  t.match(await box.ok(MANAGE, 'stop'), 'Stopped');
});

t.test('a socket does not wake it after an emergency shutdown', async (t) => {
  await box.ok('systemctl', 'enable', '--now', SOCKET);
  t.match(await box.curl('/version'), { stdout: 'one' }, 'a connection starts it');
  t.match(await emergency(), { stdout: '{"status":"shutdown_initiated"}' });
  await box.untilProperty('ActiveState', 'inactive', SOCKET);
  await box.untilProperty('ActiveState', 'inactive');
  const mark = box.mark();
  t.equal((await box.curl('/version')).code, 7, 'the next connection is refused');
  t.equal(await box.property('ActiveState'), 'inactive');

  // A start brings the socket up first, and both go down again.
  t.not((await start()).code, 0);
  await box.line('Latched by an emergency shutdown', mark);
  await box.untilProperty('ActiveState', 'inactive', SOCKET);
  t.equal((await box.curl('/version')).code, 7);
  await staysDown(t, '75');

  await box.ok(MANAGE, 'unlatch', '--reason', 'the drill is over');
  t.match(await start(), { code: 0 });
  t.equal(await box.property('ActiveState', SOCKET), 'active', 'unlatched, both are up');
  t.match(await box.curl('/version'), { stdout: 'one' });
});

t.test('a socket does not wake it with bad configuration', async (t) => {
  await box.ok('systemctl', 'stop', SOCKET, 'master-agent');
  await box.settings({ SHUTDOWN_TIMEOUT: 'soon' });
  await box.ok('systemctl', 'start', SOCKET);
  const mark = box.mark();
  t.not((await box.curl('/version')).code, 0);
  await box.line('SHUTDOWN_TIMEOUT: want', mark);
  await box.untilProperty('ActiveState', 'inactive', SOCKET);
  await staysDown(t, '78');
});
