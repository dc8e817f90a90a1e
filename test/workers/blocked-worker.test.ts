import t from 'tap';
import { WorkersService } from '../support/workers-service.ts';

t.test('a worker whose event loop is blocked is killed and replaced, and what it cut is named', async (t) => {
  const pool = await WorkersService.running(t, { env: { HEARTBEAT_TIMEOUT: '2' } });
  const { service } = pool;
  const before = await pool.pids();
  const other = await pool.connect();
  const pid = await pool.pidOf(other);
  // Connections go in turn, so this one goes to somebody else.
  const blocking = (await pool.connect()).get('/block/3600000?token=secret');
  await service.line('blocking');
  const blocked = before.find((candidate) => candidate !== pid) ?? 0;

  // Each second one of these was meant for the blocked worker, and has to come back from it.
  const waiting = await Promise.all(Array.from({ length: 6 }, () => pool.get()));
  t.strictSame(
    new Set(waiting.map(({ status }) => status)),
    new Set([200]),
    'nobody else is left without an answer',
  );
  t.equal(await pool.pidOf(other), pid, 'the other one serves all the while');

  t.not(await blocking.ended, undefined);
  await service.line(`ERROR: Worker ${blocked} has not been heard of for`);
  await service.line(`ERROR: Worker ${blocked} has ended by SIGKILL and is replaced`);
  await service.until(
    () =>
      service.lines.find((line) =>
        /Cut in-flight request: GET \/block\/3600000 after [2-9](\.\d)?s \(working\), because worker \d+ ended by SIGKILL$/.test(
          line,
        ),
      ),
    'the name of what was cut',
  );
  await service.line('serves in place of the one that has ended');
  const after = await pool.pids();
  t.ok(after.includes(pid));
  t.notOk(after.includes(blocked));
  t.notMatch(service.output, 'secret');
  t.match(
    await (await service.operator('/metrics')).text(),
    'master_agent_workers_replaced_total{cause="blocked"} 1\n',
  );

  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(
    pool.audit().filter(({ type }) => type === 'cut'),
    [{ pid: blocked, method: 'GET', path: '/block/3600000' }],
    'on record once, by the supervisor',
  );
});

t.test('a supervisor that has stood still itself does not take its workers for blocked', async (t) => {
  const pool = await WorkersService.running(t, { env: { HEARTBEAT_TIMEOUT: '2' } });
  const { service } = pool;
  const before = await pool.pids();
  service.signal('SIGSTOP');
  // The time is what is tested: longer than the workers may be silent.
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  service.signal('SIGCONT');
  for (let round = 0; round < 3; round += 1) t.equal((await pool.get()).status, 200);
  t.strictSame((await pool.pids()).sort(), before.sort());
  t.notMatch(service.output, 'blocked');
});
