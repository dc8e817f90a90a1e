import t from 'tap';
import { SystemdBox } from '../support/systemd-box.ts';

const box = await SystemdBox.withService(t, { HEARTBEAT_TIMEOUT: '1' });
await box.edit('[Service]\nWatchdogSec=2\n');
await box.ok('systemctl', 'start', 'master-agent');

const mainPid = (): Promise<string> => box.property('MainPID');
const workerPid = async (): Promise<string> => (await box.curl('/pid')).stdout;

t.test('a worker whose event loop is blocked is killed and replaced, and its request named', async (t) => {
  const [main, worker] = [await mainPid(), await workerPid()];
  const mark = box.mark();
  const blocked = box.curl('/block');
  t.equal((await box.line('its event loop is blocked. Killed', mark)).priority, 3);
  await box.line('Cut in-flight request: GET /block', mark);
  t.not((await blocked).code, 0, 'its client sees the connection end');
  await box.line('serves in place of the one that has ended', mark);
  t.not(await workerPid(), worker);
  t.equal(await mainPid(), main, 'systemd had nothing to do');
  t.equal(await box.property('NRestarts'), '0');
});

t.test('a worker that is killed is replaced', async (t) => {
  const worker = await workerPid();
  const mark = box.mark();
  await box.ok('kill', '-KILL', worker);
  await box.line('serves in place of the one that has ended', mark);
  t.not(await workerPid(), worker);
  t.equal(await box.property('NRestarts'), '0');
});

t.test('a supervisor that hangs is ended by the watchdog, and the service started again', async (t) => {
  const [main, worker] = [await mainPid(), await workerPid()];
  const mark = box.mark();
  await box.ok('kill', '-STOP', main);
  await box.line('Watchdog timeout', mark);
  await box.line("Failed with result 'watchdog'", mark);
  await box.line('Service state: RUNNING', mark);
  await box.untilProperty('ActiveState', 'active');
  t.not(await mainPid(), main);
  t.equal(await box.property('NRestarts'), '1');
  t.not(await workerPid(), worker);
  t.not((await box.run('kill', '-0', worker)).code, 0, 'its worker has not outlived it');
  await box.line(`The run before this one (pid ${main}`, mark);
});

t.test('a supervisor that is killed is started again', async (t) => {
  const main = await mainPid();
  const mark = box.mark();
  await box.ok('kill', '-KILL', main);
  await box.line("Failed with result 'signal'", mark);
  await box.line('Service state: RUNNING', mark);
  await box.untilProperty('ActiveState', 'active');
  t.not(await mainPid(), main);
  t.match(await box.curl('/version'), { stdout: 'one' });
});
