import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { GuardedProgram, PROGRAM } from '../support/guarded-program.ts';
import { count, gone } from '../support/workers-service.ts';

t.test('the program is told to stop when nothing is in flight any more', async (t) => {
  const guarded = await GuardedProgram.running(t);
  const [pid = 0] = await guarded.pids();
  t.equal(statSync(join(guarded.dir, 'state/guard')).mode & 0o777, 0o700, 'nobody else reaches its socket');
  const held = await guarded.hold('a');
  await guarded.service.stop();
  const refused = await guarded.get('/');
  t.match(refused, { status: 503, headers: { connection: 'close' } });
  t.match(JSON.parse(refused.body), { service_state: 'stopping', fail_safe: true });
  t.equal(count(guarded.service.lines, 'told to stop'), 0);
  guarded.open('a');
  t.match(await held.response(), { status: 200, headers: { connection: 'close' } });
  t.strictSame(await guarded.service.exited, { code: 0, signal: null });
  const { lines } = guarded.service;
  const at = (text: string): number => lines.findIndex((line) => line.includes(text));
  t.ok(at('told to stop') > at('Waiting up to'), 'told after the drain');
  t.ok(at('ended with 0') < at('STOPPED'));
  await gone(pid);
  t.notOk(existsSync(join(guarded.dir, 'state/guard')));
});

t.test('a program that ignores SIGTERM is killed before the deadline, with all of its group', async (t) => {
  const guarded = await GuardedProgram.running(t, {
    habit: 'ignores-term',
    env: { SHUTDOWN_TIMEOUT: '1' },
  });
  const [pid = 0] = await guarded.pids();
  guarded.service.signal('SIGTERM');
  t.strictSame(await guarded.service.exited, { code: 1, signal: null });
  t.match(guarded.service.output, /ERROR: Program node \(pid \d+\) did not end after [\d.]+s and is killed/);
  await gone(pid);
});

t.test('what a program has forked ends with it', async (t) => {
  const script = `sleep 1000 & echo forked $!; exec "${process.execPath}" "${PROGRAM}" "$1"`;
  const guarded = await GuardedProgram.running(t, { command: ['sh', '-c', script, 'sh', '{socket}'] });
  const forked = Number(/forked (\d+)/.exec(await guarded.service.line('forked'))?.[1]);
  const [pid = 0] = await guarded.pids();
  process.kill(pid, 'SIGKILL');
  await gone(forked);
  await guarded.pids();
});

t.test('a guard that is killed leaves no process behind', async (t) => {
  for (const habit of ['', 'ignores-term']) {
    const guarded = await GuardedProgram.running(t, { habit });
    const [pid = 0] = await guarded.pids();
    await guarded.hold('a');
    guarded.service.signal('SIGKILL');
    await guarded.service.left;
    await gone(pid);
    t.pass(habit || 'an obedient one');
  }
});

t.test('a stop cuts at the deadline what the program does not answer, by name', async (t) => {
  const guarded = await GuardedProgram.running(t, { env: { SHUTDOWN_TIMEOUT: '0.5' } });
  const client = (await guarded.connect()).get('/hang');
  await guarded.service.line('hanging');
  guarded.service.signal('SIGTERM');
  t.match(await client.answer(), { status: undefined });
  t.strictSame(await guarded.service.exited, { code: 1, signal: null });
  t.match(guarded.service.report().cut, [{ method: 'GET', path: '/hang', reason: 'the time is over' }]);
});

t.test('in a lame duck the health path fails, and all else is served', async (t) => {
  const guarded = await GuardedProgram.running(t, { env: { SHUTDOWN_DELAY: '60' } });
  t.equal((await guarded.get('/health')).status, 200);
  guarded.service.signal('SIGTERM');
  await guarded.service.line('Lame duck');
  t.equal((await guarded.get('/health')).status, 503);
  t.equal((await guarded.get('/pid')).status, 200);
});

t.test('a stop ends a program that is still starting', async (t) => {
  const guarded = GuardedProgram.spawn(t, { habit: 'never' });
  await guarded.service.line('Program node started');
  guarded.service.signal('SIGTERM');
  t.strictSame(await guarded.service.exited, { code: 0, signal: null });
});
