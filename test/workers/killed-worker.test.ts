import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import t from 'tap';
import { count, WorkersService } from '../support/workers-service.ts';

t.test('a worker that is killed is replaced, and what was lost with it is named', async (t) => {
  const pool = await WorkersService.running(t);
  const { service } = pool;
  const other = await pool.connect();
  const pid = await pool.pidOf(other);
  const held = (await pool.connect()).get('/hold/a');
  await service.line('holding a');
  const { workers } = await service.statusWhen(({ in_flight }) => in_flight.count === 1);
  const victim = workers?.find(({ in_flight }) => in_flight === 1)?.pid ?? 0;
  t.not(victim, pid);
  process.kill(victim, 'SIGKILL');

  t.not(await held.ended, undefined);
  t.equal(await pool.pidOf(other), pid, 'the other one serves on');
  await service.line(`ERROR: Worker ${victim} has ended by SIGKILL and is replaced`);
  await service.line('serves in place of the one that has ended');
  await service.line('Cut in-flight request: GET /hold/a after');
  t.notOk((await pool.pids()).includes(victim));
  t.equal((await pool.get()).status, 200);
  t.match(await (await service.operator('/metrics')).text(), /master_agent_requests_cut_total 1\n/);

  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(
    pool.audit().filter(({ type }) => type === 'cut' || type === 'worker_end'),
    [
      { type: 'worker_end', pid: victim, end: 'by SIGKILL' },
      { type: 'cut', pid: victim, path: '/hold/a' },
    ],
  );
});

t.test('with one worker, who comes meanwhile waits for its successor', async (t) => {
  const pool = await WorkersService.running(t, { workers: 1 });
  const { service } = pool;
  const [victim = 0] = await pool.pids(1);
  process.kill(victim, 'SIGKILL');
  await service.line('and is replaced');
  const answers = await Promise.all(Array.from({ length: 5 }, () => pool.get()));
  t.strictSame(new Set(answers.map(({ status }) => status)), new Set([200]));
});

t.test('one that dies between ready and activated is replaced too', async (t) => {
  // The first to start is ready at once, and dies when it is told to; the other waits for that.
  const app = `import { mkdirSync, existsSync, watch } from 'node:fs';
    import { join } from 'node:path';
    const doors = process.env.DOORS;
    const opened = (name) => new Promise((resolve) => {
      const look = () => existsSync(join(doors, name)) && resolve();
      watch(doors, look);
      look();
    });
    let first = true;
    try { mkdirSync(join(doors, 'first')); } catch { first = false; }
    export default {
      async start({ log }) {
        if (!first) return opened('second');
        log.info('the first is ready');
        void opened('die').then(() => process.kill(process.pid, 'SIGKILL'));
      },
      routes(router) { router.get('/', (_request, response) => response.end('works')); },
    };\n`;
  const pool = WorkersService.spawn(t, { app });
  const { service } = pool;
  await service.line('the first is ready');
  await service.line('Ops server');
  service.opsPort = Number(/:(\d+)$/.exec(await service.line('Ops server listening'))?.[1]);
  await service.statusWhen(({ workers }) => workers?.some(({ state }) => state === 'serving') ?? false);
  pool.open('die');
  await service.statusWhen(({ workers }) => workers?.length === 1);
  pool.open('second');
  await service.accepting();
  await pool.pids();
  t.equal((await pool.get()).body, 'works');
});

t.test('a fork that fails is tried again', async (t) => {
  const pool = await WorkersService.running(t, { workers: 1 });
  const { service } = pool;
  const [victim = 0] = await pool.pids(1);
  const limit = (files: number): unknown =>
    execFileSync('prlimit', ['--pid', String(service.pid), `--nofile=${files}:`]);
  limit(readdirSync(`/proc/${service.pid}/fd`).length);
  process.kill(victim, 'SIGKILL');
  await service.until(
    () => (count(service.lines, 'A worker could not be replaced: ') >= 2 ? true : undefined),
    'attempts that fail',
  );
  t.match(service.output, /A worker could not be replaced: .*EMFILE/);
  limit(1024);
  await service.line('serves in place of the one that has ended');
  t.equal((await pool.get()).status, 200);
});
