import t from 'tap';
import { APP, SystemdBox } from '../support/systemd-box.ts';

const box = await SystemdBox.withService(t, { GREETING: 'hello' });
await box.ok('systemctl', 'start', 'master-agent');

const mainPid = (): Promise<string> => box.property('MainPID');
const version = async (): Promise<string> => (await box.curl('/version')).stdout;
const reload = () => box.run('systemctl', 'reload', 'master-agent');

t.test('systemctl reload puts new code and new settings in force and loses no request', async (t) => {
  const pid = await mainPid();
  const load = box.spawn('node', '/checkout/test/fixtures/load-client.mjs', '8000', '8');
  await load.line('served');
  await box.sh(`sed -i "s/'one'/'two'/" ${APP}`);
  await box.settings({ GREETING: 'good morning' });
  t.match(await reload(), { code: 0 });
  t.equal(await version(), 'two', 'the new code serves when the command comes back');
  t.equal((await box.curl('/setting')).stdout, 'good morning', 'with the new settings');
  t.equal(await mainPid(), pid);
  t.equal(await box.property('StatusText'), 'Serving: generation 2, 1 worker');
  load.child.stdin?.end();
  const outcomes = JSON.parse((await load.result).stdout.split('\n').at(-2) ?? '');
  t.strictSame(Object.keys(outcomes), ['200'], `every request was answered: ${JSON.stringify(outcomes)}`);
});

t.test('a setting that is gone from the file is unset', async (t) => {
  await box.settings({});
  t.match(await reload(), { code: 0 });
  t.equal((await box.curl('/setting')).stdout, '');
});

const broken: Record<string, { code?: string; settings?: Record<string, string>; reason: string }> = {
  'code that cannot be parsed': { code: 'export default {', reason: 'failed when it was imported' },
  'an application whose start() fails': {
    code: "export default { start() { throw new Error('no database') } };",
    reason: 'no database',
  },
  'a bad setting': { settings: { SHUTDOWN_TIMEOUT: 'soon' }, reason: 'SHUTDOWN_TIMEOUT: want' },
  'a setting that needs a restart': {
    settings: { PORT: '9000' },
    reason: 'PORT cannot change in a reload; restart to change it',
  },
  'a worker that never becomes ready': {
    code: 'export default { start: () => new Promise(() => setInterval(() => undefined, 1000)) };',
    settings: { START_TIMEOUT: '1' },
    reason: 'not ready after 1s',
  },
};

for (const [what, { code, settings = {}, reason }] of Object.entries(broken)) {
  t.test(`${what} makes the reload fail, and the old version goes on serving`, async (t) => {
    const pid = await mainPid();
    const before = await box.sh(`cat ${APP}`);
    const mark = box.mark();
    if (code !== undefined) await box.write(APP, code);
    await box.settings(settings);
    t.match(await reload(), { code: 1 });
    const line = await box.line(reason, mark);
    t.equal(line.priority, 3, line.text);
    t.equal(await box.property('ActiveState'), 'active');
    t.equal(await mainPid(), pid);
    t.equal(await version(), 'two');
    t.match(await box.property('StatusText'), /^Serving: generation/);
    await box.write(APP, before);
    await box.settings({});
    t.match(await reload(), { code: 0 }, 'mended, it reloads');
  });
}

t.test('a stop during a reload wins', async (t) => {
  const before = await box.sh(`cat ${APP}`);
  await box.write(
    APP,
    'export default { start: () => new Promise(() => setInterval(() => undefined, 1000)) };',
  );
  const mark = box.mark();
  const reloading = reload();
  await box.line('Reloading...', mark);
  await box.ok('systemctl', 'stop', 'master-agent');
  t.not((await reloading).code, 0);
  t.equal(await box.property('ActiveState'), 'inactive');
  t.equal(await box.property('Result'), 'success');
  await box.write(APP, before);
});
