import t from 'tap';
import { MANAGE, SystemdBox } from '../support/systemd-box.ts';
import { guardSettings, PROGRAM, programPid, SETTINGS, STATE_DIR, UNIT } from '../support/systemd-guard.ts';

const box = await SystemdBox.boot(t, UNIT);
const manage = (...args: string[]) => box.run(MANAGE, '--guard', 'shop', ...args);
const exists = async (path: string): Promise<boolean> => (await box.run('test', '-e', path)).code === 0;

t.test('before it is installed, it says how to', async (t) => {
  t.match(await manage('start'), {
    code: 1,
    stderr: /not installed. Install it: sudo .* --guard shop install/,
  });
});

t.test('install makes the settings of the program, which say what is missing', async (t) => {
  const { code, stdout } = await manage('install', '--offline');
  t.equal(code, 0);
  t.match(stdout, 'There is no /opt/shop yet');
  t.match(
    stdout,
    'Set GUARD_COMMAND and PORT there, then start it: systemctl enable --now master-agent-guard@shop',
  );
  t.equal(await box.sh(`stat -c "%U %G %a" ${SETTINGS}`), 'root master-agent 640\n');
  t.notOk(await exists('/etc/master-agent/master-agent.env'), 'and not those of the service');
  await box.sh('install -d /opt/shop');
  t.match(await manage('start'), {
    code: 1,
    stderr: new RegExp(`GUARD_COMMAND: want it set[^]*${SETTINGS}`),
  });
});

t.test('start, status, reload, logs, restart, stop', async (t) => {
  await box.sh(`cp /checkout/test/fixtures/guarded-program.mjs ${PROGRAM}`);
  await guardSettings(box);
  t.match(await manage('start'), { code: 0, stdout: /^Started: Serving/ });
  const first = await programPid(box);
  const status = await manage('status');
  t.equal(status.code, 0);
  for (const part of ['active (running)', '0 in flight', 'program: ', 'Service state: RUNNING'])
    t.match(status.stdout, part);
  t.match(await manage('reload'), { code: 0, stdout: /^Reloaded: Serving/ });
  const second = await programPid(box);
  t.not(second, first);
  await guardSettings(box, 'exits');
  t.match(await manage('reload'), { code: 1, stderr: /The reload was refused/ });
  t.equal(await programPid(box), second);
  await guardSettings(box);
  t.match(await manage('restart'), { code: 0, stdout: /^Restarted: Serving/ });
  t.match(await manage('logs', '-n', '20'), { code: 0, stdout: /Service state: RUNNING/ });
  t.match(await manage('stop'), { code: 0, stdout: /Stopped: all in flight completed/ });
  t.match(await manage('stop'), { code: 0, stdout: /^Nothing to stop/ });
});

t.test('installed again the settings are kept; another is added from the installed copy', async (t) => {
  t.match(await manage('install', '--offline'), { code: 0, stdout: /shop.env is kept as it is/ });
  const blog = '/opt/master-agent/deployment/manage-service.sh --guard blog';
  t.match(await box.sh(`${blog} install`), 'Settings: /etc/master-agent/blog.env');
  await box.sh(`sed 's/shop/blog/g; $a PORT=8010' ${SETTINGS} > /etc/master-agent/blog.env`);
  await box.sh('echo OPS_PORT=8011 >> /etc/master-agent/blog.env');
  await box.sh('cp -R /opt/shop /opt/blog');
  t.match(await box.sh(`${blog} start`), /^Started: Serving/);
  t.match(await manage('start'), { code: 0 }, 'both at once');
});

t.test('uninstall leaves other programs alone, --purge takes the settings and the audit log', async (t) => {
  await box.ok('systemctl', 'enable', UNIT, 'master-agent-guard@blog');
  t.match(await manage('uninstall'), { code: 0, stdout: `Kept: settings in ${SETTINGS}` });
  t.equal(await box.property('ActiveState'), 'inactive');
  t.ok((await exists(SETTINGS)) && (await exists(`${STATE_DIR}/audit.ndjson`)));
  t.match(await manage('uninstall', '--purge'), { code: 0 });
  t.notOk((await exists(SETTINGS)) || (await exists(STATE_DIR)));
  t.ok(await exists(PROGRAM), 'the program is not ours');
  t.equal(await box.property('ActiveState', 'master-agent-guard@blog'), 'active');

  t.match(await box.run(MANAGE, 'uninstall', '--purge'), { code: 0 });
  t.equal((await box.run('curl', '--silent', 'http://localhost:8010/')).code, 7, 'nobody listens');
  t.equal(
    await box.sh('find /etc/systemd /etc/master-agent /var/lib -name "*master-agent*" 2>/dev/null || :'),
    '',
  );
});
