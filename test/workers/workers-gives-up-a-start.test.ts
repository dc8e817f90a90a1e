import t from 'tap';
import { count, WorkersService } from '../support/workers-service.ts';

t.test('a worker that dies at once five times in a row ends the start', async (t) => {
  const { service } = WorkersService.spawn(t, { workers: 1, app: 'process.kill(process.pid, "SIGKILL");\n' });
  t.strictSame(await service.exited, { code: 70, signal: null });
  t.equal(count(service.lines, 'the worker ended by SIGKILL before it was ready: trying again'), 4);
  t.match(service.output, 'the worker ended by SIGKILL before it was ready, 5 times in a row');
  t.notMatch(service.output, 'RUNNING');
});

t.test('one that says why it cannot start is not tried again', async (t) => {
  const cases: [string, number, RegExp][] = [
    ['throw new Error("no database");\n', 70, /APP: app\.mjs failed when it was imported: no database/],
    ['export default 42;\n', 78, /APP: want app\.mjs to export an app .* got number/],
  ];
  for (const [app, code, told] of cases) {
    const { service } = WorkersService.spawn(t, { app });
    t.strictSame(await service.exited, { code, signal: null });
    t.match(service.output, told);
    t.notMatch(service.output, 'trying again');
  }
});

t.test('a worker that is never ready ends the start', async (t) => {
  const { service } = WorkersService.spawn(t, {
    workers: 1,
    env: { START_TIMEOUT: '1' },
    app: 'export default { start: () => new Promise(() => setInterval(() => {}, 1000)) };\n',
  });
  t.strictSame(await service.exited, { code: 70, signal: null });
  t.match(service.output, 'the worker was not ready after 1s');
});
