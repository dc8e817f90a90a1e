import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { pathToFileURL } from 'node:url';
import { pino } from 'pino';
import t from 'tap';
import { completeConfig } from '../../src/config/settings.ts';
import { type App, ConfigError, createService, sendJson } from '../../src/index.ts';
import { Doors, embedded, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { tempDir } from '../support/service-process.ts';

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP', 'uncaughtException', 'unhandledRejection'] as const;

/** An application whose one handler waits until the test lets it go. */
function holdingApp(doors: Doors): App {
  return {
    routes(router) {
      router.get('/hold', async (_request, response) => {
        doors.open('held');
        await doors.wait('release');
        sendJson(response, 200, { held: true });
      });
    },
  };
}

t.test('it starts, serves and stops, and tells how the stop went', async (t) => {
  const doors = new Doors();
  const calls: string[] = [];
  const { service, ask } = embedded(t, {
    app: {
      start({ log, config, stopping }) {
        t.type(log.info, 'function');
        t.equal(config.host, '127.0.0.1');
        t.notOk(stopping.aborted);
        t.equal(service.state, 'starting');
        t.equal(service.address, null, 'it does not listen before start() is done');
        calls.push('start');
      },
      routes(router) {
        calls.push('routes');
        holdingApp(doors).routes?.(router);
      },
      stop() {
        t.equal(service.state, 'stopping');
        t.equal(service.inFlight, 0, 'it is told to let go when nothing is in flight');
        calls.push('stop');
      },
    },
  });
  t.equal(service.state, 'starting');
  t.notOk(service.acceptingRequests);

  await service.start();
  t.equal(service.state, 'running');
  t.ok(service.acceptingRequests);
  t.strictSame(calls, ['start', 'routes']);
  const answer = ask('/hold');
  await doors.wait('held');
  t.equal(service.inFlight, 1);
  t.match(await service.status(), { state: 'running', in_flight: { count: 1 } });

  const stopped = service.stop();
  t.equal(service.state, 'stopping', 'locked in the same turn');
  t.notOk(service.acceptingRequests);
  t.equal(service.stop('somebody else'), stopped, 'a second stop is the same stop');
  t.equal((await ask('/')).status, 503);
  doors.open('release');
  t.equal((await answer).status, 200);
  const report = await stopped;
  t.match(report, {
    unclean: false,
    pid: process.pid,
    reason: 'stop()',
    in_flight_at_lock: 1,
    completed: 1,
    aborted: 0,
    cut: [],
    rejected: 1,
    exit_code: 0,
  });
  t.equal(await service.stopped, report);
  t.equal(service.state, 'stopped');
  t.equal(service.inFlight, 0);
  t.equal(service.address, null);
  t.equal(service.opsAddress, null);
  t.strictSame(calls, ['start', 'routes', 'stop']);
});

t.test('it installs no handlers, and two of them share a process', async (t) => {
  const handlers = (): number[] => SIGNALS.map((name) => process.listenerCount(name as 'SIGTERM'));
  const before = handlers();
  const one = await running(t, { app: { routes: (router) => router.get('/one', (_, r) => r.end('1')) } });
  const two = await running(t, { config: { opsPort: 'off' } });
  t.strictSame(handlers(), before);
  t.not(one.port, two.port);
  t.equal(two.service.opsAddress, null);
  t.equal((await one.ask('/one')).status, 200);
  t.equal((await two.ask('/one')).status, 404);

  await one.service.stop();
  t.equal(two.service.state, 'running', 'the end of one is not the end of the other');
  t.equal((await two.ask('/health')).status, 200);
  await two.service.stop();
  t.strictSame(handlers(), before);
  // Had one of them ended the process, nobody would read this.
  t.pass('the program goes on');
});

t.test('while it starts, a request on a connection handed to it gets the 503 of a start', async (t) => {
  const { service } = embedded(t);
  const front = createServer((socket) => service.server.emit('connection', socket));
  front.listen(0, '127.0.0.1');
  await once(front, 'listening');
  const address = front.address();
  const client = await RawClient.open(typeof address === 'object' ? (address?.port ?? 0) : 0);

  const refused = await client.get('/health').response();
  t.equal(refused.status, 503);
  t.strictSame(JSON.parse(refused.body), {
    error: 'Service Unavailable',
    message: 'Service is starting. Please try again later.',
    service_state: 'starting',
    fail_safe: true,
  });
  t.match(refused.headers, { 'retry-after': '5', 'cache-control': 'no-store', connection: 'close' });
  t.equal(await client.ended, 'fin');
  t.match(await service.status(), { rejected: { total: 1, starting: 1 } });

  await service.start();
  const second = await RawClient.open(typeof address === 'object' ? (address?.port ?? 0) : 0);
  t.equal((await second.get('/health').response()).status, 200, 'and later its answer');
  second.destroy();
  front.close();
});

t.test('bad settings are refused before there is a service', async (t) => {
  t.throws(() => createService({ config: { port: -1, maxHeaderBytes: 5 } }), ConfigError);
  t.throws(() => createService({ app: { routes: 'none' } as never }), {
    name: 'StartError',
    message: /^APP: want the app to export/,
  });
});

t.test(
  'a service that was stopped does not start, before its first start or after it, and says so',
  async (t) => {
    const { service, lines } = embedded(t, {
      app: { start: () => t.fail('started'), stop: () => t.fail('stopped without a start') },
    });
    const report = await service.stop('the program');
    t.match(report, { reason: 'the program', exit_code: 0, in_flight_at_lock: 0 });
    const message =
      'start(): a service starts once, and this one is stopped; make a new one with createService()';
    await t.rejects(service.start(), { name: 'StartError', exitCode: 70, message });
    t.equal(service.state, 'stopped');
    t.equal(service.address, null);
    t.ok(lines.some(({ msg }) => msg.startsWith('Asked to stop by the program.')));

    const ran = (await running(t)).service;
    await ran.start();
    t.equal(ran.state, 'running', 'a second start of a service that runs changes nothing');
    const stopping = ran.stop('the program', 60_000);
    await t.rejects(
      ran.start(),
      { message: message.replace('is stopped', 'is stopping') },
      'in its lame duck',
    );
    await ran.force('the end');
    await stopping;
    await t.rejects(ran.start(), { message });
  },
);

t.test('a start that fails lets go of what it had opened, and can be read', async (t) => {
  const stopped: string[] = [];
  const { service, stateDir } = embedded(t, {
    app: {
      stop: () => stopped.push('stop'),
      routes() {
        throw new Error('no routes today');
      },
    },
  });
  await t.rejects(service.start(), {
    name: 'StartError',
    exitCode: 70,
    message: 'APP: routes() of the application failed: no routes today',
  });
  t.equal(service.state, 'stopped');
  t.equal(service.opsAddress, null);
  t.strictSame(stopped, ['stop'], 'what has started is stopped');
  t.match(await service.stopped, { reason: 'failed start', exit_code: 70 });
  t.equal(await service.stop(), await service.stopped, 'stopping it again is no mistake');
  t.strictSame(readdirSync(stateDir), ['lock'], 'and nothing is left of the run that never began');
});

t.test('force() cuts what is in flight', async (t) => {
  const doors = new Doors();
  const { service, port } = await running(t, { app: holdingApp(doors) });
  const client = (await RawClient.open(port)).get('/hold');
  await doors.wait('held');
  const report = await service.force('impatience');
  t.match(report, {
    reason: 'impatience',
    exit_code: 1,
    completed: 0,
    cut: [{ method: 'GET', path: '/hold' }],
  });
  await t.rejects(client.response());
});

t.test(
  'its log is JSON at LOG_LEVEL, unless the program says more; a logger of its own stays as it is',
  async (t) => {
    const linesOf = (options: string, LOG_LEVEL: string): string[] => {
      const program = `
      import { createService } from ${JSON.stringify(new URL('dist/index.js', pathToFileURL(`${ROOT}/`)).href)};
      const config = { port: 0, opsPort: 'off', host: '127.0.0.1', stateDir: ${JSON.stringify(tempDir(t))} };
      const service = createService(${options});
      await service.start();
      await service.stop();`;
      const args = ['--input-type=module', '--eval', program];
      const { status, stdout, stderr } = spawnSync(process.execPath, args, {
        ...{ encoding: 'utf8', env: { ...process.env, LOG_LEVEL } },
      });
      if (status !== 0) return [stderr];
      return stdout.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line).level]));
    };
    t.ok(linesOf('{ config }', '').includes('info'));
    t.strictSame(linesOf('{ config }', 'warn'), ['warn'], 'the line that says STOPPING');
    t.ok(linesOf("{ config: { ...config, logLevel: 'info' } }", 'warn').includes('info'));
    t.match(linesOf('{ config }', 'loud'), [
      /logLevel \(LOG_LEVEL\): want one of trace, debug, info, warn, error, fatal, silent, got "loud"/,
    ]);

    const log = pino({ level: 'error' }, { write: () => undefined });
    const config = {
      port: 0,
      opsPort: 'off',
      host: '127.0.0.1',
      stateDir: tempDir(t),
      auditLog: 'off',
    } as const;
    const service = createService({ config, log });
    await service.start();
    await service.reload(completeConfig({ ...config, retryAfter: 9 }));
    t.equal(log.level, 'error');
    await service.reload(completeConfig({ ...config, logLevel: 'warn' }));
    t.equal(log.level, 'warn', 'a reload that changes the level changes it');
    await service.stop();
  },
);
