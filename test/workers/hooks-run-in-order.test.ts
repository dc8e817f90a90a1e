import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { failSafe, type Hooks, type StartContext, type StopContext } from '../../src/index.ts';
import { embedded } from '../support/embedded-service.ts';
import { tempDir } from '../support/service-process.ts';
import { WorkersService } from '../support/workers-service.ts';

/** Says each hook, and the state that its process is in as a client sees it. `replace` breaks one of them. */
const appWith = (broken: Record<string, string> = {}): string => `
  const hook = (name) => async ({ log, reason, deadline }) => log.info(\`hook \${name} \${reason} \${deadline > 0}\`);
  export default {
    start: ({ log }) => log.info('hook start'),
    routes(router) {
      router.get('/', (request, response) => response.end('here'));
      router.get('/hold', (request, response, { log, stopping, inFlight }) => {
        log.info('holding');
        stopping.addEventListener('abort', () => setTimeout(() => {
          log.info('hook answered');
          response.end();
        }, 300));
      });
    },
    ${['locked', 'drained', 'stop'].map((name) => `${name}: ${broken[name] ?? `hook('${name}')`},`).join('\n    ')}
  };`;

function hooksOf({ service }: WorkersService): string[] {
  return service.lines
    .filter((line) => line.includes('INFO: hook '))
    .map((line) => line.replace('INFO: hook ', '').replace(/ \(worker \d+\)/, ''));
}

for (const workers of [0, 1]) {
  t.test(`WORKERS=${workers}: start, locked, the last answer, drained, stop`, async (t) => {
    const pool = await WorkersService.running(t, { workers, app: appWith() });
    const held = (await pool.connect()).get('/hold');
    await pool.service.line('holding');
    pool.service.signal('SIGTERM');
    t.equal((await held.response()).status, 200);
    t.equal((await pool.service.exited).code, 0);
    t.strictSame(hooksOf(pool), [
      'start',
      'locked SIGTERM true',
      'answered',
      'drained SIGTERM true',
      'stop SIGTERM true',
    ]);
    const at = (text: string): number => pool.service.lines.findIndex((line) => line.includes(text));
    if (workers === 0)
      t.ok(at('STOPPING') < at('hook locked'), 'the service is locked before the application is told');
  });

  t.test(`WORKERS=${workers}: a hook that fails is named, the others run, and the exit is 70`, async (t) => {
    for (const broken of ['locked', 'drained']) {
      const app = appWith({ [broken]: `() => { throw new Error('on purpose'); }` });
      const pool = await WorkersService.running(t, { workers, app });
      pool.service.signal('SIGTERM');
      t.equal((await pool.service.exited).code, 70);
      t.match(pool.service.output, `ERROR: The application's ${broken}() failed`);
      const others = ['start', 'locked', 'drained', 'stop'].filter((name) => name !== broken);
      t.strictSame(
        hooksOf(pool).map((line) => line.split(' ')[0]),
        others,
      );
    }
  });

  t.test(`WORKERS=${workers}: a hook that never ends is named at its limit, and the exit is 1`, async (t) => {
    for (const broken of ['locked', 'drained']) {
      const app = appWith({ [broken]: '() => new Promise(() => {})' });
      const pool = await WorkersService.running(t, { workers, app, env: { SHUTDOWN_TIMEOUT: '1' } });
      pool.service.signal('SIGTERM');
      t.equal((await pool.service.exited).code, 1);
      t.match(
        pool.service.output,
        new RegExp(`^ERROR: The application's ${broken}\\(\\) was not done after [\\d.]+s`, 'm'),
      );
      t.match(hooksOf(pool).at(-1), /^stop/, 'and stop() runs');
    }
  });

  t.test(`WORKERS=${workers}: what the deadline has cut has not drained`, async (t) => {
    const app = appWith().replace('}, 300)', '}, 3_600_000)');
    const pool = await WorkersService.running(t, { workers, app, env: { SHUTDOWN_TIMEOUT: '1' } });
    (await pool.connect()).get('/hold');
    await pool.service.line('holding');
    pool.service.signal('SIGTERM');
    t.equal((await pool.service.exited).code, 1);
    t.strictSame(
      hooksOf(pool).map((line) => line.split(' ')[0]),
      ['start', 'locked', 'stop'],
    );
  });
}

t.test('a worker that a reload retires runs its hooks too', async (t) => {
  const pool = await WorkersService.running(t, { workers: 1, app: appWith() });
  await pool.reload();
  await pool.service.line('hook stop retirement');
  t.strictSame(hooksOf(pool), [
    'start',
    'start',
    'locked retirement true',
    'drained retirement true',
    'stop retirement true',
  ]);
});

t.test('new requests are refused while locked() has not returned', async (t) => {
  const told: string[] = [];
  let done: () => void = () => undefined;
  const made = embedded(t, {
    app: {
      locked: () => {
        told.push('locked');
        return new Promise<void>((resolve) => {
          done = resolve;
        });
      },
      drained: () => told.push('drained'),
    },
  });
  await made.service.start();
  const stopped = made.service.stop();
  t.strictSame([made.service.state, told], ['stopping', []], 'the lock comes first');
  t.equal((await made.ask('/')).status, 503);
  t.strictSame(told, ['locked'], 'nothing is in flight, but the application may still begin something');
  done();
  t.equal((await stopped).exit_code, 0);
  t.strictSame(told, ['locked', 'drained']);
});

t.test('work that begins after the lock is waited for, and after the drain it cannot begin', async (t) => {
  let start: StartContext | undefined;
  const refused: unknown[] = [];
  const begin = (): void => {
    try {
      start?.inFlight.enter('too late');
    } catch (error) {
      refused.push(error);
    }
  };
  let leave: () => void = () => undefined;
  const made = embedded(t, {
    app: {
      start: (context) => {
        start = context;
      },
      locked: () => {
        leave = start?.inFlight.enter('nested') ?? leave;
      },
      drained: begin,
      stop: begin,
    },
  });
  await made.service.start();
  const stopped = made.service.stop();
  await made.ask('/');
  t.match(made.service.status().in_flight, { count: 1, holds: [{ name: 'nested' }] });
  leave();
  t.equal((await stopped).exit_code, 0);
  t.equal(refused.length, 2);
  t.match(refused, [/the drain is over/, /the drain is over/]);
});

t.test('what locked() begins at its end is waited for', async (t) => {
  let start: StartContext | undefined;
  let finish: () => void = () => undefined;
  let leave: () => void = () => undefined;
  const told: string[] = [];
  const made = embedded(t, {
    app: {
      start: (context) => {
        start = context;
      },
      async locked() {
        // Longer than the quiet tail: nothing else keeps the drain from being over.
        await new Promise<void>((resolve) => {
          finish = resolve;
        });
        leave = start?.inFlight.enter('the last batch') ?? leave;
      },
      drained: () => told.push('drained'),
    },
  });
  await made.service.start();
  const stopped = made.service.stop();
  for (let turns = 0; turns < 20; turns += 1) t.equal((await made.ask('/')).status, 503, 'it still listens');
  finish();
  await made.ask('/');
  t.match(made.service.status().in_flight.holds, [{ name: 'the last batch' }]);
  t.strictSame(told, []);
  leave();
  t.equal((await stopped).exit_code, 0);
  t.strictSame(told, ['drained']);
});

t.test('failSafe takes the hooks of a program whose server is its own', async (t) => {
  const told: string[] = [];
  const hook =
    (name: string) =>
    (context: StartContext | StopContext): void => {
      told.push(name);
      t.type(context.log.info, 'function');
    };
  const server = createServer((_request, response) => response.end('here'));
  const service = failSafe(server, {
    ...{ signals: false, opsPort: 'off', stateDir: tempDir(t), auditLog: 'off', logLevel: 'silent' },
    ...{ start: hook('start'), locked: hook('locked'), drained: hook('drained'), stop: hook('stop') },
  });
  server.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  t.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), 'here');
  t.strictSame(told, ['start'], 'before the first request');
  t.equal((await service.stop()).exit_code, 0);
  t.strictSame(told, ['start', 'locked', 'drained', 'stop']);

  const wrong = { signals: false, locked: 7 } as unknown as Hooks;
  t.throws(() => failSafe(createServer(), wrong), {
    message: 'failSafe: want functions for its hooks, got number for locked',
  });
});
