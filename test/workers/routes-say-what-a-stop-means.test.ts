import t from 'tap';
import { Router } from '../../src/server/router.ts';
import { WorkersService } from '../support/workers-service.ts';

/** Each route says when it hears of the stop; `/finish` and `/tell` then answer. */
const APP = `
  import { EventEmitter } from 'node:events';
  const wait = (kind) => (request, response, { log, stopping, signal, params }) => {
    response.writeHead(200).write('begun ');
    signal.addEventListener('abort', () => log.info(\`\${kind} ended: \${signal.reason.message}\`));
    const told = () => {
      log.info(\`\${kind} told: \${stopping.reason.message}\`);
      setTimeout(() => response.end('done'), 200);
    };
    if (stopping.aborted) told();
    else stopping.addEventListener('abort', told);
    log.info(\`\${kind} waits\`);
  };
  const take = (kind) => (request, socket, head, { log, stopping }) => {
    socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: test\\r\\n\\r\\n');
    stopping.addEventListener('abort', () => {
      log.info(\`\${kind} told\`);
      socket.end('bye');
    });
    socket.resume().on('error', () => {});
    log.info(\`\${kind} waits\`);
  };
  export default {
    routes(router) {
      router.get('/plain', wait('plain'));
      router.get('/finish', { onStop: 'finish' }, wait('finish'));
      router.get('/tell/:name', { onStop: 'tell' }, wait('tell'));
      router.post('/close', { onStop: 'close' }, wait('close'));
      router.mount('/mounted', { onStop: 'close' }, (request, response) => response.write('begun '));
      router.upgrade('/socket/tell', { onStop: 'tell' }, take('tell socket'));
      router.upgrade('/socket/close', { onStop: 'close' }, take('close socket'));
    },
  };`;

const UPGRADE = 'Host: a\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n';

for (const workers of [0, 2]) {
  t.test(`WORKERS=${workers}: finish, tell and close`, async (t) => {
    const pool = await WorkersService.running(t, { workers, app: APP });
    const open = async (request: string) => {
      const client = await pool.connect();
      client.write(request);
      return client;
    };
    const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;
    const [plain, finish, tell] = await Promise.all(
      ['/plain', '/finish', '/tell/a'].map((p) => open(get(p))),
    );
    const closed = await Promise.all([
      open('POST /close HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n'),
      open(get('/mounted/x')),
      open(`GET /socket/close HTTP/1.1\r\n${UPGRADE}`),
    ]);
    const socket = await open(`GET /socket/tell HTTP/1.1\r\n${UPGRADE}`);
    for (const kind of ['plain', 'finish', 'tell', 'close', 'tell socket', 'close socket'])
      await pool.service.line(`${kind} waits`);
    await pool.service.statusWhen(({ in_flight }) => in_flight.count === 7);
    pool.service.signal('SIGTERM');

    for (const client of [plain, finish, tell])
      t.equal((await client?.response())?.body, 'begun done', 'answered whole');
    for (const client of closed) {
      t.notMatch(await client.rest(), '0\r\n\r\n', 'ended without the rest of an answer');
    }
    t.match(await socket.rest(), /bye$/);
    socket.destroy();
    t.strictSame(await pool.service.exited, { code: 0, signal: null }, 'what is closed is not cut by force');
    const { output } = pool.service;
    for (const kind of ['plain', 'finish', 'tell']) t.match(output, `${kind} told: the service is stopping`);
    t.match(output, 'close ended: the service stops, and the route is closed then');
    t.match(pool.service.report(), { in_flight_at_lock: 7, completed: 4, closed: 3, aborted: 0, cut: [] });
    const outcomes = pool
      .audit()
      .filter(({ type }) => type === 'request')
      .map(({ path, outcome }) => `${path} ${outcome}`);
    t.strictSame(outcomes.sort(), [
      '/close closed',
      '/finish completed',
      '/mounted/x closed',
      '/plain completed',
      '/socket/close closed',
      '/socket/tell completed',
      '/tell/a completed',
    ]);
  });
}

t.test('without fail-safe, what comes after the lock hears of the stop at once', async (t) => {
  const env = { ENABLE_FAIL_SAFE: 'false', DRAIN_SPREAD: '20' };
  const pool = await WorkersService.running(t, { workers: 0, app: APP, env });
  const [held, late, closed] = await Promise.all([pool.connect(), pool.connect(), pool.connect()]);
  held.get('/finish');
  await pool.service.line('finish waits');
  for (const client of [late, closed]) t.equal((await client.get('/health').response()).status, 200);
  await pool.service.stop();
  t.equal((await late.get('/tell/late').response()).body, 'begun done');
  closed.write('POST /close HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n');
  await closed.rest();
  t.notMatch(pool.service.output, 'close waits', 'it is not begun');
  t.equal((await pool.service.exited).code, 0);
});

t.test('wrong options are named', async (t) => {
  const router = new Router();
  const handler = (): undefined => undefined;
  const wrong: [unknown[], string][] = [
    [[{ onStop: 'cut' }, handler], 'router: onStop of GET /a: want one of finish, tell, close, got "cut"'],
    [[{ onstop: 'tell' }, handler], 'router: want options { onStop } for GET /a, got "onstop"'],
    [['tell', handler], 'router: want options { onStop } for GET /a, got string'],
    [[{ onStop: 'tell' }], 'router: want a function for GET /a, got object'],
    [[{ onStop: 'tell' }, 7], 'router: want a function for GET /a, got number'],
  ];
  for (const [rest, message] of wrong)
    t.throws(() => Reflect.apply(router.get, router, ['/a', ...rest]), { name: 'TypeError', message });
  router.get('/a', { onStop: 'tell' }, handler);
});
