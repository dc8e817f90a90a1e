import t from 'tap';
import { SystemdBox } from '../support/systemd-box.ts';

const FILE = '/etc/credstore/master-agent.admin-token';
const TOKEN = 'correct-horse-battery-staple';

const box = await SystemdBox.withService(t);

const emergency = (token: string) =>
  box.curl(
    '/admin/emergency-shutdown',
    '-o',
    '/dev/null',
    '-w',
    '%{http_code}',
    '-X',
    'POST',
    '-H',
    `Authorization: Bearer ${token}`,
  );

t.test('without the credential the service starts, and /admin is closed', async (t) => {
  t.match(await box.run('systemctl', 'start', 'master-agent'), { code: 0 });
  t.match(await emergency(TOKEN), { stdout: '403' });
});

t.test('a credential that root alone can read opens /admin', async (t) => {
  await box.sh('install -d -m 0700 /etc/credstore');
  await box.write(FILE, `${TOKEN}\n`);
  await box.ok('chmod', '0600', FILE);
  await box.ok('systemctl', 'restart', 'master-agent');
  const main = await box.property('MainPID');
  t.notMatch(await box.sh(`tr '\\0' '\\n' < /proc/${main}/environ`), TOKEN, 'it is in no environment');
  t.match(await emergency('not-the-token-at-all'), { stdout: '403' });
  t.match(await box.run('systemctl', 'reload', 'master-agent'), { code: 0 }, 'the new worker finds it too');
  t.match(await emergency(TOKEN), { stdout: '200' });
  await box.untilProperty('ActiveState', 'inactive');
});

t.test('a credential that is no token is bad configuration', async (t) => {
  await box.sh('rm /var/lib/master-agent/emergency.json');
  await box.write(FILE, 'short\n');
  const mark = box.mark();
  t.not((await box.run('systemctl', 'start', 'master-agent')).code, 0);
  t.equal(await box.property('ExecMainStatus'), '78');
  t.notMatch((await box.line('ADMIN_TOKEN_FILE: want', mark)).text, /\bshort\b/);
});
