import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { GuardedProgram, PROGRAM } from '../support/guarded-program.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess } from '../support/service-process.ts';
import { count, gone } from '../support/workers-service.ts';

const TOKEN = 'a-token-that-is-long-enough';

t.test('a program that does not start ends the start, and the reason is told', async (t) => {
  const cases = [
    ['exits', 70, 'FATAL: GUARD_COMMAND: node ended with 3 before it was ready'],
    [
      'never',
      70,
      /FATAL: GUARD_COMMAND: node was not ready after 1s \(START_TIMEOUT\): no connection at \/health of its socket/,
    ],
    [
      'forks',
      70,
      'FATAL: GUARD_COMMAND: node ended with 0 before it was ready: it must stay in the foreground',
    ],
  ] as const;
  for (const [habit, code, line] of cases) {
    const env = habit === 'never' ? { START_TIMEOUT: '1' } : {};
    const { service, dir } = GuardedProgram.spawn(t, { habit, env });
    t.strictSame(await service.exited, { code, signal: null }, habit);
    t.match(service.output, line);
    t.notOk(existsSync(join(dir, 'state/guard')), 'and nothing is left of it');
  }
  const { service } = GuardedProgram.spawn(t, { command: ['no-such-program'] });
  t.strictSame(await service.exited, { code: 78, signal: null });
  t.match(
    service.output,
    'GUARD_COMMAND: want a program that can be run, got "no-such-program": no such file in PATH',
  );
});

t.test('the command line of guard is understood', async (t) => {
  for (const [args, env, code, line] of [
    [['guard'], {}, 78, 'GUARD_COMMAND: want it set, or a command behind guard, got neither'],
    [['guard', '--what'], {}, 78, 'guard: want a command, got the option --what'],
    [['guard', '--help'], {}, 0, 'usage: master-agent guard'],
    [['serve'], { GUARD_COMMAND: 'uvicorn app' }, 78, 'GUARD_COMMAND: want a JSON array of strings'],
    [['serve', 'app.mjs'], { GUARD_COMMAND: '["true"]' }, 78, 'APP and GUARD_COMMAND are both set'],
    [
      ['guard', 'true'],
      { GUARD_PORT: '9', WORKERS: '2' },
      78,
      'GUARD_PORT: want 0 for 2 programs (WORKERS), got 9',
    ],
    [['check'], { GUARD_COMMAND: '["no-such-program"]' }, 78, 'no such file in PATH'],
    [['check'], { GUARD_COMMAND: '["true"]' }, 0, 'OK: settings, files and the program to guard'],
  ] as const) {
    const service = ServiceProcess.spawn(t, { args, env });
    t.equal((await service.exited).code, code, args.join(' '));
    t.match(service.output, line);
  }
  const env = { GUARD_COMMAND: JSON.stringify([process.execPath, PROGRAM]), APP: '' };
  const service = await ServiceProcess.running(t, { args: [], env: { ...env, DOORS: ROOT } });
  t.equal(
    (await fetch(`http://127.0.0.1:${service.port}/health`)).status,
    200,
    'GUARD_COMMAND alone is enough',
  );
});

t.test('the program has no secret of ours, an address of its own, and its output is passed on', async (t) => {
  const env = {
    ...{ ADMIN_TOKEN: TOKEN, NOTIFY_SOCKET: '', WATCHDOG_USEC: '1', LISTEN_FDS: '0' },
    ...{ ITS_OWN: 'yes', APP: 'its-own', LOG_FORMAT: 'text' },
  };
  const guarded = await GuardedProgram.running(t, { env, habit: 'no-newline' });
  const seen = JSON.parse((await guarded.get('/env')).body);
  for (const name of ['ADMIN_TOKEN', 'NOTIFY_SOCKET', 'WATCHDOG_USEC', 'LISTEN_FDS', 'PORT', 'HOST'])
    t.equal(seen[name], undefined, name);
  t.match(seen, { ITS_OWN: 'yes', APP: 'its-own' });
  t.notMatch(readFileSync(`/proc/${(await guarded.pids())[0]}/environ`, 'utf8'), TOKEN);
  const pieces = (): number[] =>
    guarded.service.lines.flatMap((line) => /^node\[\d+\]: (x+)$/.exec(line)?.[1]?.length ?? []);
  await guarded.service.line('xxx');
  t.ok(
    pieces().every((length) => length > 60_000 && length < 200_000),
    `in pieces, though it has ended no line: ${pieces()}`,
  );

  const byPort = await GuardedProgram.running(t, {
    command: [process.execPath, PROGRAM],
    env: { LOG_FORMAT: 'json' },
  });
  const own = JSON.parse((await byPort.get('/env')).body);
  t.equal(own.HOST, '127.0.0.1');
  t.not(own.PORT, String(byPort.port));
  (await byPort.connect()).get('/hang');
  await byPort.service.line('hanging');
  t.ok(byPort.service.lines.includes('hanging'), 'as it is');
});

t.test(
  'while a program that has died is started again, a request is refused, and told that it is safe',
  async (t) => {
    const guarded = await GuardedProgram.running(t, { habit: 'broken-later' });
    guarded.open('broken');
    const client = await guarded.connect();
    t.equal((await client.get('/exit').response()).status, 502);
    await guarded.service.line('ended with 6');
    const refused = await client.get('/').response();
    t.match(refused, { status: 503, headers: { 'retry-after': '5', connection: 'keep-alive' } });
    t.match(JSON.parse(refused.body), { service_state: 'starting', fail_safe: true });
    t.equal((await guarded.service.operator('/readyz')).status, 503);
    t.equal((await guarded.service.operator('/livez')).status, 200);
    await guarded.service.line(
      'could not be restarted: GUARD_COMMAND: node ended with 4 before it was ready',
    );
    guarded.shut('broken');
    await guarded.pids();
    t.equal((await client.get('/').response()).status, 200, 'on the same connection');
    const metrics = await (await guarded.service.operator('/metrics')).text();
    t.match(metrics, 'master_agent_guard_restarts_total{cause="ended"} 1\n');
    t.match(metrics, 'master_agent_guard_instances{state="serving"} 1\n');
    t.match(metrics, 'master_agent_requests_refused_total{reason="starting"} 1\n');
    t.match(metrics, 'route="guarded"');
    const status = ServiceProcess.spawn(t, { args: ['status'], stateDir: guarded.service.stateDir });
    await status.exited;
    t.match(status.output, 'replaced: 1 ended, 0 unhealthy, 0 deaf');
    t.match(status.output, /instance \d+: serving, generation 1, 0 in flight/);
  },
);

t.test('a program that cannot be restarted is given up: exit 70', async (t) => {
  const guarded = await GuardedProgram.running(t, { habit: 'broken-later' });
  guarded.open('broken');
  await guarded.get('/exit');
  t.strictSame(await guarded.service.exited, { code: 70, signal: null });
  t.match(guarded.service.output, /FATAL: Nothing serves any more: 8 failures in a row/);
  t.match(guarded.service.output, 'The program cannot be restarted. Initiating graceful shutdown');
  t.match(guarded.service.report(), { reason: 'program', exit_code: 70 });
});

t.test('a program that fails its health checks is replaced', async (t) => {
  const guarded = await GuardedProgram.running(t, {
    env: { GUARD_HEALTH_INTERVAL: '0.05', GUARD_HEALTH_FAILURES: '2' },
  });
  const [first] = await guarded.pids();
  guarded.open('ill');
  await guarded.service.line('has failed 2 health checks in a row (status 500): it is killed');
  guarded.shut('ill');
  const { restarts } = await guarded.statusWhen(({ instances }) =>
    instances.some(({ pid, state }) => state === 'serving' && pid !== first),
  );
  t.equal(restarts.unhealthy, 1);
});

t.test(
  'a program that stops accepting without having been told is replaced, and finishes what it has',
  async (t) => {
    const guarded = await GuardedProgram.running(t);
    const [first] = await guarded.pids();
    const held = await guarded.hold('a');
    await guarded.get('/deaf');
    const refused = await guarded.get('/');
    t.equal(refused.status, 503);
    t.match(JSON.parse(refused.body), { service_state: 'starting', fail_safe: true });
    await guarded.service.line(`Program node (pid ${first}) no longer accepts connections`);
    await guarded.statusWhen(({ instances }) => instances.some(({ state }) => state === 'serving'));
    t.not(JSON.parse((await guarded.get('/pid')).body).pid, first);
    guarded.open('a');
    t.match(JSON.parse((await held.response()).body), { held: 'a', pid: first });
    await gone(first ?? 0);
  },
);

t.test('an instance that dies leaves the others serving', async (t) => {
  const guarded = await GuardedProgram.running(t, { env: { WORKERS: '2' } });
  const pids = await guarded.pids(2);
  const held = await guarded.hold('a');
  const others = await guarded.get('/pid');
  const busy = pids.find((pid) => pid !== JSON.parse(others.body).pid);
  process.kill(busy ?? 0, 'SIGKILL');
  t.equal(
    (await held.response()).status,
    502,
    'the one with the fewest requests was asked, so the other was busy',
  );
  t.equal((await guarded.get('/pid')).status, 200);
  const now = await guarded.pids(2);
  t.equal(now.filter((pid) => pids.includes(pid)).length, 1);
  t.equal(count(guarded.service.lines, 'ended by SIGKILL'), 1);
});
