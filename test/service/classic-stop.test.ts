import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import t from 'tap';
import { createService, sendJson } from '../../src/index.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const CLASSIC = { env: { ENABLE_FAIL_SAFE: 'false', SHUTDOWN_TIMEOUT: '60' } };

t.test('without fail-safe new connections are refused, and open ones served to their end', async (t) => {
  const service = await ServiceProcess.running(t, CLASSIC);
  const held = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);
  await service.stop();

  await t.rejects(RawClient.open(service.port), { code: 'ECONNREFUSED' });
  const served = await idle.get('/').response();
  t.equal(served.status, 200);
  t.equal(served.headers.connection, 'close');
  t.equal(await idle.ended, 'fin');

  service.release('a');
  const answer = await held.response();
  t.equal(answer.status, 200);
  t.equal(answer.headers.connection, 'close');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.strictSame(service.lines.slice(service.lines.findIndex((line) => line.includes('Received'))), [
    'INFO: Received signal 15. Initiating graceful shutdown...',
    'WARNING: Service state: STOPPING - 1 in-flight requests remaining.',
    'INFO: Waiting up to 60s for 1 in-flight requests to complete...',
    'INFO: Service state: STOPPED - All requests completed gracefully',
    'INFO: Service shutdown complete',
  ]);
});

t.test('without fail-safe a request that comes at the very end is served to its end', async (t) => {
  // In one process, so that the request can be written at a moment that no other process can see: when nothing is
  // in flight any more, and the service looks for a last time before it leaves.
  const service = createService({
    config: { host: '127.0.0.1', port: 0, opsPort: 'off', enableFailSafe: false, stateDir: tempDir(t) },
    log: pino({ level: 'silent' }),
    app: {
      routes(router) {
        router.get('/', (_request, response) => sendJson(response, 200, {}));
        router.get('/last', (_request, response) => {
          response.on('close', () => setTimeout(() => late.get('/late'), 2));
          setImmediate(() => sendJson(response, 200, {}));
          void service.stop();
        });
        router.get('/late', async (_request, response) => {
          await delay(100);
          sendJson(response, 200, { state: service.state });
        });
      },
    },
  });
  await service.start();
  const port = service.address?.port ?? 0;
  const late = await RawClient.open(port);
  t.equal((await late.get('/').response()).status, 200);
  const last = (await RawClient.open(port)).get('/last');
  t.equal((await last.response()).status, 200);

  t.match(await late.response(), {
    status: 200,
    headers: { connection: 'close' },
    body: '{"state":"stopping"}',
  });
  t.equal(await late.ended, 'fin');
  t.match(await service.stopped, { completed: 2, cut: [], exit_code: 0 });
  last.destroy();
  late.destroy();
});

t.test('without fail-safe the deadline holds', async (t) => {
  const service = await ServiceProcess.running(t, { env: { ...CLASSIC.env, SHUTDOWN_TIMEOUT: '1' } });
  const client = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(service.output, 'WARNING: Cut in-flight request: GET /hold/a');
  client.destroy();
});

t.test('without fail-safe what is let in past the deadline is cut, and named', async (t) => {
  const service = await ServiceProcess.running(t, {
    env: { ENABLE_FAIL_SAFE: 'false', SHUTDOWN_TIMEOUT: '1' },
  });
  const hanging = (await RawClient.open(service.port)).get('/hang');
  const [late, blocking] = [await RawClient.open(service.port), await RawClient.open(service.port)];
  for (const client of [late, blocking]) t.equal((await client.get('/').response()).status, 200);
  await service.statusWhen(({ in_flight }) => in_flight.count === 1);
  await service.stop();
  // The loop stands still until past the deadline: what comes meanwhile is read when the drain was forced already.
  blocking.get('/block/2000');
  await service.line('blocking');
  late.get('/until-cut');

  t.strictSame(await service.exited, { code: 1, signal: null });
  t.not(await hanging.ended, undefined);
  t.equal(late.pending, '');
  const paths = service.report().cut.map(({ path }) => path);
  t.ok(paths.includes('/hang') && paths.includes('/until-cut'), String(paths));
  t.match(service.output, /Cut in-flight request: GET \/until-cut after/);
});
