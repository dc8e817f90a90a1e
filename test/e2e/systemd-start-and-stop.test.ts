import t from 'tap';
import { SystemdBox } from '../support/systemd-box.ts';

const box = await SystemdBox.withService(t);

t.test('systemctl start comes back when requests are accepted', async (t) => {
  t.match(await box.run('systemctl', 'start', 'master-agent'), { code: 0 });
  t.match(await box.curl('/version'), { code: 0, stdout: 'one' }, 'the first request is served');
  const status = await box.ok('systemctl', 'status', 'master-agent', '--no-pager');
  t.match(status, 'Active: active (running)');
  t.match(status, 'Status: "Serving: generation 1, 1 worker"');
  t.equal(await box.property('NRestarts'), '0');
});

t.test('systemctl stop answers what is in flight and shows the drain', async (t) => {
  const held = await box.hold('one');
  const mark = box.mark();
  const stop = box.run('systemctl', 'stop', 'master-agent');
  await box.line('Waiting up to', mark);
  t.equal(await box.property('ActiveState'), 'deactivating');
  while (
    !/^Draining: 1 in flight, \d+ s left; oldest GET \/hold\/one/.test(await box.property('StatusText'))
  );
  t.match(await box.curl('/version'), { stdout: /"fail_safe":true/ }, 'a new request is refused');
  await held.release();
  t.match(await held.answer, { code: 0, stdout: 'held one' }, 'the one in flight is answered');
  t.match(await stop, { code: 0 });
  t.equal(await box.property('ActiveState'), 'inactive');
  t.equal(await box.property('Result'), 'success');

  await box.line('Service shutdown complete', mark);
  const lines = box.journal.slice(mark).filter(({ from }) => from === 'master-agent');
  t.strictSame(
    lines.map(({ text, priority }) => [priority, text.replace(/\(worker \d+\)$/, '(worker N)')]),
    [
      [6, 'INFO: Received signal 15. Initiating graceful shutdown (fail-safe)...'],
      [
        4,
        'WARNING: Service state: STOPPING - Rejecting new requests (fail-safe mode). 1 in-flight requests remaining.',
      ],
      [6, 'INFO: Waiting up to 30s for 1 in-flight requests to complete...'],
      [4, 'WARNING: Refused 1 request: stopping (worker N)'],
      [6, 'INFO: Service state: STOPPED - All requests completed gracefully'],
      [6, 'INFO: Service shutdown complete'],
    ],
    "the stop's lines, with their priorities",
  );
});

t.test('a stop that had to cut requests is a failure, and is not started again', async (t) => {
  await box.settings({ SHUTDOWN_TIMEOUT: '1' });
  await box.ok('systemctl', 'start', 'master-agent');
  const mark = box.mark();
  const cut = box.curl('/hang');
  await box.line('hanging', mark);
  await box.ok('systemctl', 'stop', 'master-agent');
  t.not((await cut).code, 0);
  t.equal(await box.property('ActiveState'), 'failed');
  t.equal(await box.property('ExecMainStatus'), '1');
  const found = async (text: string): Promise<number> => (await box.line(text, mark)).priority;
  t.equal(await found('WARNING: Shutdown timeout: 1 requests still in-flight after 1s'), 4);
  t.equal(await found('Cut in-flight request: GET /hang'), 4);
  t.equal(await found('ERROR: Force shutdown: In-flight requests did not complete in time'), 3);
  await box.ok('systemctl', 'reset-failed', 'master-agent');
});

t.test('a drain may take longer than the unit grants: it asks for more', async (t) => {
  await box.settings({ SHUTDOWN_TIMEOUT: '60' });
  await box.edit('[Service]\nTimeoutStopSec=2\n');
  await box.ok('systemctl', 'start', 'master-agent');
  const held = await box.hold('long');
  const mark = box.mark();
  const stop = box.run('systemctl', 'stop', 'master-agent');
  await box.line('Waiting up to', mark);
  // Four reports on the drain, one a second: past what the unit grants.
  const seen = new Set<string>();
  while (seen.size < 4) seen.add(/, (\d+) s left/.exec(await box.property('StatusText'))?.[1] ?? '');
  await held.release();
  t.match(await held.answer, { stdout: 'held long' });
  t.match(await stop, { code: 0 });
  t.strictSame([await box.property('Result'), await box.property('ExecMainStatus')], ['success', '0']);
});
