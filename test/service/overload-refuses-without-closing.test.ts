import t from 'tap';
import { type App, sendJson } from '../../src/index.ts';
import { Doors, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

/** In one write, so that both are read before anything is answered. */
const BOTH = 'GET /hold HTTP/1.1\r\nHost: test\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n';

function app(doors: Doors): App {
  return {
    routes(router) {
      router.get('/', (_request, response) => sendJson(response, 200, {}));
      router.get('/hold', async (_request, response) => {
        doors.open('held');
        await doors.wait('release');
        sendJson(response, 200, {});
      });
    },
  };
}

t.test('past MAX_IN_FLIGHT a request gets 503 and keeps its connection', async (t) => {
  const doors = new Doors();
  const { service, port, operator } = await running(t, {
    app: app(doors),
    config: { maxInFlight: 1, retryAfter: 7 },
  });
  const first = (await RawClient.open(port)).get('/hold');
  await doors.wait('held');
  const second = await RawClient.open(port);

  const refused = await second.get('/').response();
  t.equal(refused.status, 503);
  t.strictSame(JSON.parse(refused.body), {
    error: 'Service Unavailable',
    message: 'Service is overloaded. Please try again later.',
    service_state: 'running',
    fail_safe: false,
  });
  t.match(refused.headers, { 'retry-after': '7', 'cache-control': 'no-store' });
  t.not(refused.headers.connection, 'close');
  t.equal(service.inFlight, 1);
  t.match(await (await operator('/status')).json(), {
    state: 'running',
    rejected: { total: 1, overloaded: 1, stopping: 0 },
  });

  // A body that nobody reads is in nobody's way.
  second.request('POST', '/', { 'Content-Length': '100000' }).write('x'.repeat(100_000));
  t.equal((await second.response()).status, 503);
  second.request('HEAD', '/');
  t.equal((await second.response({ head: true })).status, 503);

  doors.open('release');
  t.equal((await first.response()).status, 200);
  t.equal((await second.get('/').response()).status, 200, 'the connection is as good as before');
  t.equal((await first.get('/').response()).status, 200);
  for (const client of [first, second]) client.destroy();
});

t.test('a request that is refused behind one in flight is answered in its turn', async (t) => {
  const doors = new Doors();
  const { port } = await running(t, { app: app(doors), config: { maxInFlight: 1 } });
  const client = (await RawClient.open(port)).write(BOTH);
  await doors.wait('held');
  doors.open('release');
  t.equal((await client.response()).status, 200);
  t.equal((await client.response()).status, 503);
  t.equal((await client.get('/').response()).status, 200);
  client.destroy();
});

t.test('a stop does not lose the 503 that waits behind one in flight', async (t) => {
  const doors = new Doors();
  const { port, service } = await running(t, { app: app(doors), config: { maxInFlight: 1 } });
  const client = (await RawClient.open(port)).write(BOTH);
  await doors.wait('held');
  const stopped = service.stop();
  doors.open('release');
  t.equal((await client.response()).status, 200);
  t.match(JSON.parse((await client.response()).body), { fail_safe: false });
  t.equal(await client.ended, 'fin');
  t.match(await stopped, { completed: 1, rejected: 0, exit_code: 0 });
});

t.test('while stopping the answer is that of the stop, whatever the load', async (t) => {
  const doors = new Doors();
  const { port, service } = await running(t, { app: app(doors), config: { maxInFlight: 1 } });
  const busy = (await RawClient.open(port)).get('/hold');
  await doors.wait('held');
  const idle = await RawClient.open(port);
  t.match(JSON.parse((await idle.get('/').response()).body), { fail_safe: false });
  const stopped = service.stop();
  t.match(JSON.parse((await idle.get('/').response()).body), { fail_safe: true, service_state: 'stopping' });
  doors.open('release');
  t.equal((await busy.response()).status, 200);
  t.match(await stopped, { rejected: 1 });
});

t.test('the log sums up refusals by their reason, whatever the state is by then', async (t) => {
  const service = await ServiceProcess.running(t, { env: { MAX_IN_FLIGHT: '1' } });
  const held = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 503);
  await service.stop();
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 503);
  service.release('a');
  t.equal((await held.response()).status, 200);
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(service.output, 'WARNING: Refused 1 request: overloaded');
  t.match(service.output, 'WARNING: Refused 1 request: stopping');
});
