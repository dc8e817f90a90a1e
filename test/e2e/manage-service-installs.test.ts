import t from 'tap';
import { MANAGE, SystemdBox } from '../support/systemd-box.ts';

const box = await SystemdBox.boot(t);

/** What is installed, with owner and mode, without times. */
const inventory = (): Promise<string> =>
  box.sh(
    "find /opt/master-agent /etc/master-agent /etc/systemd/system/master-agent* /etc/logrotate.d/master-agent -printf '%p %u %g %m %s\\n' | sort",
  );

t.test('install puts a service in place that starts', async (t) => {
  const installed = await box.ok(MANAGE, 'install', '--offline');
  t.match(installed, 'User master-agent made');
  t.match(installed, 'Start it: systemctl enable --now master-agent.service');
  t.equal(await box.sh('stat -c "%U %G %a" /etc/master-agent/master-agent.env'), 'root master-agent 640\n');
  t.equal(
    (await box.sh('find /opt/master-agent ! -user root -o -perm /022 ! -type l')).trim(),
    '',
    'the service cannot change it',
  );
  t.equal(
    (await box.run('test', '-e', '/opt/master-agent/node_modules/typescript')).code,
    1,
    'no tools of development',
  );
  t.match(await box.run(MANAGE, 'status'), { code: 3 });
  t.match(await box.run(MANAGE, 'start'), { code: 0, stdout: 'Started: Serving: generation 1, 1 worker' });
  t.match(await box.curl('/health'), { stdout: /"service_state":"running"/ });
  const status = await box.ok(MANAGE, 'status');
  for (const part of ['active (running)', '0 in flight', 'Service state: RUNNING']) t.match(status, part);
  t.match(await box.ok(MANAGE, 'logs', '-n', '5'), 'Service state: RUNNING');
  t.match(await box.run(MANAGE, 'reload'), { code: 0, stdout: /^Reloaded: Serving: generation 2/ });
});

t.test('installed again nothing is different, and the settings are kept', async (t) => {
  await box.sh('echo RETRY_AFTER=7 >> /etc/master-agent/master-agent.env');
  const before = await inventory();
  const pid = await box.property('MainPID');
  const again = await box.ok(MANAGE, 'install', '--offline');
  t.match(again, 'master-agent.env is kept as it is');
  t.match(again, 'The service runs with the version before this one');
  t.equal(await inventory(), before);
  t.equal(await box.property('MainPID'), pid, 'what runs is left alone');
  t.match(await box.run(MANAGE, 'restart'), { code: 0, stdout: /^Restarted: Serving: generation 1/ });
  t.match(await box.run(MANAGE, 'stop'), { code: 0, stdout: /Stopped: all in flight completed/ });
  t.match(await box.run(MANAGE, 'stop'), { code: 0, stdout: /^Nothing to stop/ });
});

t.test('all settings of the environment file can be switched on as they stand', async (t) => {
  // A comment behind a value would become a part of it: systemd is not the shell.
  await box.sh("sed -i -E '/=$/!s/^# ([A-Z_]+=)/\\1/' /etc/master-agent/master-agent.env");
  t.match(await box.run(MANAGE, 'start'), { code: 0 });
  t.match(await box.run(MANAGE, 'reload'), { code: 0 });
});

t.test('a broken version is refused, with the reason', async (t) => {
  await box.sh('echo LOG_LEVEL=loud >> /etc/master-agent/master-agent.env');
  t.match(await box.run(MANAGE, 'reload'), { code: 1, stderr: /Reload refused.*LOG_LEVEL: want/ });
  t.equal(await box.property('ActiveState'), 'active');
  t.match(await box.run(MANAGE, 'restart'), { code: 1, stderr: /exit 78[\s\S]*LOG_LEVEL: want/ });
  await box.sh("sed -i '$d' /etc/master-agent/master-agent.env");
});

t.test('the audit log is rotated, and its chain goes on', async (t) => {
  if ((await box.run('sh', '-c', 'command -v logrotate')).code !== 0)
    return t.comment('there is no logrotate');
  t.match(await box.run(MANAGE, 'start'), { code: 0 });
  const mark = box.mark();
  await box.ok('logrotate', '--force', '/etc/logrotate.d/master-agent');
  await box.line('Reopening the audit log', mark);
  await box.curl('/health');
  await box.ok(MANAGE, 'stop');
  t.match(await box.sh('ls /var/lib/master-agent'), /audit\.ndjson\.1\n/);
  const verify = 'cd /opt/master-agent && STATE_DIR=/var/lib/master-agent node dist/main.js verify-audit';
  t.match(await box.sh(verify), /OK: \d+ records, 2 files, /);
});

t.test('only root may change the system', async (t) => {
  for (const command of ['install', 'uninstall', 'start', 'stop', 'restart', 'reload']) {
    const { code, stderr } = await box.run('setpriv', '--reuid=65534', '--clear-groups', MANAGE, command);
    t.equal(code, 1);
    t.match(stderr, `${command} needs root: sudo`);
  }
});

t.test('uninstall keeps what people would miss, and --purge does not', async (t) => {
  await box.ok('systemctl', 'enable', '--now', 'master-agent.socket', 'master-agent.service');
  await box.sh('mkdir /opt/master-agent/app && touch /opt/master-agent/app/mine.mjs');
  t.match(await box.ok(MANAGE, 'uninstall'), 'Kept: settings in /etc/master-agent');
  t.equal((await box.curl('/health')).code, 7, 'nobody listens');
  t.equal(await box.property('LoadState'), 'not-found');
  t.equal(await box.sh('ls -A /opt/master-agent'), 'app\n', 'an application is left alone');
  t.equal((await box.run('test', '-e', '/var/lib/master-agent/audit.ndjson')).code, 0);
  t.equal((await box.run('test', '-e', '/etc/logrotate.d/master-agent')).code, 1);

  t.match(await box.ok(MANAGE, 'install', '--offline'), 'is kept as it is');
  t.match(await box.run(MANAGE, 'start'), { code: 0 }, 'installed again it starts');
  await box.ok(MANAGE, 'uninstall', '--purge');
  t.equal((await box.run('ls', '/etc/master-agent', '/var/lib/master-agent')).stdout, '');
  t.equal((await box.run('id', 'master-agent')).code, 1);
  t.match(await box.run(MANAGE, 'uninstall'), { code: 0 }, 'and again is no mistake');
});
