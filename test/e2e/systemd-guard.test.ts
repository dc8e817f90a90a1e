import t from 'tap';
import type { SystemdBox } from '../support/systemd-box.ts';
import { bootGuard, guardSettings, hold, programPid } from '../support/systemd-guard.ts';

const UNIT = 'master-agent-guard@shop';
const box = await bootGuard(t);

/** Closed loops of requests. @returns ends them, and tells how many ended how */
async function load(box: SystemdBox): Promise<() => Promise<Record<string, number>>> {
  const running = box.spawn('node', '/checkout/test/fixtures/load-client.mjs', '8000', '8');
  await running.line('served');
  return async () => {
    running.child.stdin?.end();
    return JSON.parse((await running.result).stdout.split('\n').at(-2) ?? '');
  };
}

const isGone = async (pid: string): Promise<boolean> =>
  (await box.run('test', '-e', `/proc/${pid}`)).code === 1;

t.test('systemctl start comes back when the program serves, and it is as confined as the gate', async (t) => {
  t.match(await box.run('systemctl', 'start', UNIT), { code: 0 });
  const pid = await programPid(box);
  t.not(pid, await box.property('MainPID'));
  const status = await box.sh(`cat /proc/${pid}/status`);
  t.match(status, /^NoNewPrivs:\s1$/m);
  t.match(status, /^CapEff:\s0+$/m);
  t.match(status, /^Seccomp:\s2$/m);
  t.equal((await box.sh(`stat -c %U /proc/${pid}`)).trim(), 'master-agent');
});

t.test('systemctl reload exchanges the program, and loses no request', async (t) => {
  const [main, before] = [await box.property('MainPID'), await programPid(box)];
  const ends = await load(box);
  t.match(await box.run('systemctl', 'reload', UNIT), { code: 0 });
  t.not(await programPid(box), before, 'another serves when the command comes back');
  t.equal(await box.property('MainPID'), main);
  const outcomes = await ends();
  t.strictSame(Object.keys(outcomes), ['200'], JSON.stringify(outcomes));
  await box.ok('timeout', '30', 'tail', `--pid=${before}`, '-f', '/dev/null');
});

t.test('a broken program makes the reload fail, and the one before it serves on', async (t) => {
  const before = await programPid(box);
  await guardSettings(box, 'exits');
  t.match(await box.run('systemctl', 'reload', UNIT), { code: 1 });
  t.equal(await programPid(box), before);
  t.equal(await box.property('ActiveState'), 'active');
  await guardSettings(box);
});

t.test('a program that is killed is told to who waited for it, and started again', async (t) => {
  const [main, before] = [await box.property('MainPID'), await programPid(box)];
  const held = await hold(box, 'killed');
  const mark = box.mark();
  await box.ok('kill', '-KILL', before);
  t.match(await held.answer, { code: 0, stdout: /"fail_safe":false/ });
  await box.line('is ready after', mark);
  t.match(await box.curl('/pid', '--retry', '5'), { code: 0, stdout: /"pid":\d+/ });
  t.not(await programPid(box), before);
  t.equal(await box.property('MainPID'), main);
  t.equal(await box.property('NRestarts'), '0', 'systemd had nothing to do');
});

t.test('systemctl stop under load loses no request; the program is told last, and is gone', async (t) => {
  const pid = await programPid(box);
  const ends = await load(box);
  const held = await hold(box, 'stopped');
  const mark = box.mark();
  const stop = box.run('systemctl', 'stop', UNIT);
  await box.line('Waiting up to', mark);
  t.notOk(
    box.journal.slice(mark).some(({ text }) => text.includes('told to stop')),
    'it does not know yet',
  );
  await held.release();
  t.match(await held.answer, { code: 0, stdout: /"held":"stopped"/ });
  t.match(await stop, { code: 0 });
  const outcomes = await ends();
  t.ok(outcomes['200']);
  t.strictSame(
    Object.keys(outcomes).filter((outcome) => !['200', '503', 'ECONNREFUSED'].includes(outcome)),
    [],
    JSON.stringify(outcomes),
  );
  t.strictSame([await box.property('Result'), await box.property('ExecMainStatus')], ['success', '0']);
  t.ok(await isGone(pid));
  await box.line('Service shutdown complete', mark);
  const lines = box.journal.slice(mark).map(({ text }) => text);
  const at = (text: string): number => lines.findIndex((line) => line.includes(text));
  t.ok(at('told to stop') > at('Waiting up to'));
  t.ok(at('told to stop') < at('Service state: STOPPED'));
});

t.test('a gate that is killed takes the program with it, and both are started again', async (t) => {
  await box.ok('systemctl', 'start', UNIT);
  const [main, pid] = [await box.property('MainPID'), await programPid(box)];
  const mark = box.mark();
  await box.ok('kill', '-KILL', main);
  await box.line(`The run before this one (pid ${main}`, mark);
  await box.untilProperty('ActiveState', 'active');
  t.ok(await isGone(pid));
  t.not(await programPid(box), pid);
});
