import t from 'tap';
import { need } from '../support/need.ts';
import { Clients, PROXIES, Replica, restarter, runProgram } from '../support/replicas.ts';

const CLIENTS = 16;
const SCRIPT = 'deployment/rolling-restart.sh';
need('curl');

for (const [name, start] of Object.entries(PROXIES)) {
  t.test(`behind ${name}: all replicas are restarted, and no client sees it`, async (t) => {
    const a = await Replica.running(t);
    const b = await Replica.running(t);
    const load = new Clients(await start(t, [a, b]), CLIENTS);
    await load.served(100);
    const before = [a.service.pid, b.service.pid];

    const command = await restarter(t, { a, b });
    const doors = Object.entries({ a, b }).map(([of, { opsPort }]) => `${of}=http://127.0.0.1:${opsPort}`);
    const { code, said } = await runProgram(SCRIPT, ['--restart', command, '--settle', '2', ...doors]);
    t.equal(code, 0, said);
    t.match(
      said,
      /Restarting a\na runs since .*: 0 requests cut\nRestarting b\n(.*\n)*All 2 replicas run anew/,
    );
    t.notOk(before.includes(a.service.pid) || before.includes(b.service.pid), 'both are new processes');

    await load.served(100);
    const { posts, errors } = await load.stop();
    t.strictSame(errors, []);
    await a.stop();
    await b.stop();
    t.equal(a.admitted('POST') + b.admitted('POST'), posts, 'each POST was done once');
    t.ok(a.admitted('POST') > 50 && b.admitted('POST') > 50, 'both had their share');
  });
}

t.test('a replica that does not come back ends it, and the next one is left alone', async (t) => {
  const a = await Replica.running(t);
  const b = await Replica.running(t);
  const doors = Object.entries({ a, b }).map(([of, { opsPort }]) => `${of}=http://127.0.0.1:${opsPort}`);
  const run = (...args: string[]) => runProgram(SCRIPT, [...args, ...doors]);

  t.match(await run('--restart', 'exit 3'), {
    code: 1,
    said: 'a: the command that restarts it failed (3)',
  });
  t.match(await run('--restart', 'true', '--wait', '1'), {
    code: 1,
    said: 'a is not ready again after 1 s',
  });
  const { pid } = b.service;
  const kill = `kill ${a.service.pid}`;
  t.match(await run('--restart', kill, '--wait', '1'), { code: 1, said: 'a is not ready again after 1 s' });
  t.match(await run('--restart', 'true'), { code: 1, said: 'a is not ready: nothing more is restarted' });
  t.equal(b.service.pid, pid);
  t.equal((await fetch(`http://127.0.0.1:${b.port}/`)).status, 200, 'the other one serves');
  t.match(await run(), { code: 78, said: '--restart: want the command' });
  t.match(await run('--restart', 'true', '--settle', 'x'), {
    code: 78,
    said: '--settle: want a number of seconds',
  });
  t.match(await runProgram(SCRIPT, ['--restart', 'true', doors[0] ?? '']), { code: 78, said: 'got 1' });
});
