import t from 'tap';
import { ServiceProcess } from '../support/service-process.ts';
import { WorkersService } from '../support/workers-service.ts';

const WORKS = `export default {
  routes(router) {
    router.get('/', (_request, response) => response.end('works'));
  },
};\n`;

/** What is wrong with the new version, and what an operator is told of it. */
const BROKEN: Readonly<Record<string, { app?: string; dotenv?: string; told: RegExp }>> = {
  'a syntax error': { app: 'export default {', told: /APP: app\.mjs failed when it was imported: / },
  'a module that throws': {
    app: `throw new Error('no database');\n`,
    told: /APP: app\.mjs failed when it was imported: no database/,
  },
  'no application': { app: 'export const answer = 42;\n', told: /APP: want app\.mjs to export an app/ },
  'a start() that rejects': {
    app: `export default { start: async () => { throw new Error('no licence'); } };\n`,
    told: /APP: start\(\) of app\.mjs failed: no licence/,
  },
  'a start() that never ends': {
    app: 'export default { start: () => new Promise(() => setInterval(() => {}, 1000)) };\n',
    dotenv: 'START_TIMEOUT=1\n',
    told: /the worker was not ready after 1s/,
  },
  'a start() that blocks': {
    app: 'export default { start() { for (;;); } };\n',
    dotenv: 'START_TIMEOUT=1\n',
    told: /the worker was not ready after 1s/,
  },
  'a worker that dies at once': {
    app: 'process.kill(process.pid, "SIGKILL");\n',
    told: /the worker ended by SIGKILL before it was ready, 5 times in a row/,
  },
  'a bad setting': {
    dotenv: 'SHUTDOWN_TIMEOUT=10s\nRETRY_AFTER=soon\n',
    told: /SHUTDOWN_TIMEOUT: want a number of seconds.* got "10s"; RETRY_AFTER: want/,
  },
  'another PORT': { dotenv: 'PORT=1\n', told: /PORT cannot change in a reload; restart to change it/ },
  'another HOST': {
    dotenv: 'HOST=127.0.0.2\n',
    told: /HOST cannot change in a reload; restart to change it/,
  },
  'no workers': { dotenv: 'WORKERS=0\n', told: /WORKERS cannot change in a reload; restart to change it/ },
};

t.test('a broken reload is refused, with the reason, and the old generation goes on serving', async (t) => {
  const dotenv = 'HOST=127.0.0.1\nPORT=0\nWORKERS=2\n';
  const unset = { HOST: undefined, PORT: undefined, WORKERS: undefined };
  const pool = await WorkersService.running(t, { app: WORKS, dotenv, env: unset });
  const { service } = pool;
  const pids = await pool.pids();
  for (const [what, { app = WORKS, dotenv: changed = '', told }] of Object.entries(BROKEN)) {
    await t.test(what, async (t) => {
      pool.rewrite(app);
      pool.setDotenv(`${dotenv}${changed}`);
      const before = service.lines.length;
      await pool.reload();
      const refusal = service.lines.slice(before).find((line) => line.includes('Reload refused'));
      t.match(refusal, /^ERROR: Reload refused, generation 1 goes on serving: /);
      t.match(refusal, told);
      const { last_reload, generation, state } = await service.statusWhen(() => true);
      t.match(last_reload, { outcome: 'refused', reason: told, generation: 1 });
      t.match({ generation, state }, { generation: 1, state: 'running' });
      t.strictSame((await pool.pids()).sort(), [...pids].sort(), 'the same workers, and nobody else');
      t.equal((await pool.get()).body, 'works');
    });
  }

  const command = ServiceProcess.spawn(t, {
    ...{ args: ['reload'], cwd: pool.dir, stateDir: service.stateDir },
    env: { ...unset, WORKERS: '2' },
  });
  t.strictSame(await command.exited, { code: 1, signal: null }, 'the command fails');
  t.match(
    command.output,
    'Reload refused, generation 1 goes on serving: WORKERS cannot change in a reload; restart to change it',
  );

  pool.setDotenv(dotenv);
  pool.rewrite(WORKS.replace("'works'", "'works again'"));
  await pool.reload();
  t.equal((await pool.get()).body, 'works again', 'a version that works is taken');
  const records = pool.audit().filter(({ type }) => type === 'reload');
  t.ok(records.length >= Object.keys(BROKEN).length, 'all on record');
});
