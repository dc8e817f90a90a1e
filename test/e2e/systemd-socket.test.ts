import t from 'tap';
import { SystemdBox } from '../support/systemd-box.ts';

const SOCKET = 'master-agent.socket';
const LOOPS = '16';

const box = await SystemdBox.withService(t);

t.test('a connection starts the service, and waits until it serves', async (t) => {
  await box.ok('systemctl', 'start', SOCKET);
  t.equal(await box.property('ActiveState'), 'inactive');
  t.match(await box.curl('/version'), { code: 0, stdout: 'one' });
  t.equal(await box.property('ActiveState'), 'active');
});

for (const workers of ['0', '1', '2']) {
  t.test(`restarts under load refuse no connection (WORKERS=${workers})`, async (t) => {
    await box.settings({ WORKERS: workers });
    await box.ok('systemctl', 'restart', 'master-agent');
    const load = box.spawn('node', '/checkout/test/fixtures/load-client.mjs', '8000', LOOPS);
    await load.line('served');
    const pids = new Set<string>();
    for (let round = 0; round < 3; round += 1) {
      pids.add(await box.property('MainPID'));
      t.match(await box.run('systemctl', 'restart', 'master-agent'), { code: 0 });
      t.match(await box.curl('/version'), { stdout: 'one' });
    }
    t.equal(pids.size, 3, 'each was a process of its own');
    load.child.stdin?.end();
    const outcomes: Record<string, number> = JSON.parse((await load.result).stdout.split('\n').at(-2) ?? '');
    const { 200: served = 0, 503: refused = 0, ...lost } = outcomes;
    t.notOk(lost.ECONNREFUSED, 'no connection was refused');
    t.notOk(lost.HUNG, 'no request was left without an end');
    t.ok(served > 0);
    // A client that is slower than the quiet tail with its next request on a kept-alive connection loses it.
    t.comment(`${served} served, ${refused} answered with 503, lost: ${JSON.stringify(lost)}`);
  });
}

t.test('without the socket unit the service listens by itself', async (t) => {
  await box.ok('systemctl', 'stop', SOCKET, 'master-agent');
  t.equal((await box.curl('/version')).code, 7, 'stopped, both refuse');
  await box.ok('systemctl', 'start', 'master-agent');
  t.not(await box.property('ActiveState', SOCKET), 'active');
  t.match(await box.curl('/version'), { stdout: 'one' });
});
