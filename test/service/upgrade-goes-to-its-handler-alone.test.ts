import { once } from 'node:events';
import t from 'tap';
import { type App, sendJson } from '../../src/index.ts';
import { Doors, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';

const UPGRADE = { Connection: 'Upgrade', Upgrade: 'test' };
const SWITCHED = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: test\r\nConnection: Upgrade\r\n\r\n';

const plain: App = {
  routes(router) {
    router.get('/', (_request, response) => sendJson(response, 200, { plain: true }));
    router.post('/', async (request, response) => {
      let bytes = 0;
      for await (const chunk of request) bytes += chunk.length;
      sendJson(response, 200, { bytes });
    });
  },
};

/** Sends back what it is told, until the client ends it. */
function echoing(doors = new Doors()): App {
  return {
    routes(router) {
      plain.routes?.(router);
      router.upgrade('/socket/:name', async (_request, socket, head, { params, query }) => {
        socket.write(`${SWITCHED}${params.name} ${query.get('x')} ${head}`);
        socket.on('data', (data) => socket.write(`echo ${data}`));
        socket.on('end', () => socket.end('bye'));
        doors.open('taken');
        await once(socket, 'close');
      });
      router.upgrade('/fail', () => {
        throw new Error('thrown in an upgrade');
      });
      router.upgrade('/reject', async () => {
        throw new Error('rejected in an upgrade');
      });
    },
  };
}

t.test('without upgrade routes the header is ignored, and the connection goes on', async (t) => {
  const { port } = await running(t, { app: plain });
  const client = await RawClient.open(port);
  t.match(await client.request('GET', '/', UPGRADE).response(), { status: 200, body: '{"plain":true}' });
  client.request('POST', '/', { ...UPGRADE, 'Content-Length': '5' }).write('12345');
  t.match(await client.response(), { status: 200, body: '{"bytes":5}' });
  t.equal((await client.request('GET', '/nowhere', UPGRADE).response()).status, 404);
  t.equal((await client.get('/').response()).status, 200);
  client.destroy();
});

t.test('with them, a request to another path is served as if there were no such header', async (t) => {
  const { port, service } = await running(t, { app: echoing() });
  for (const [path, status] of [
    ['/', 200],
    ['/nowhere', 404],
    ['/health', 200],
  ] as const) {
    const client = await RawClient.open(port);
    t.equal((await client.request('GET', path, UPGRADE).response()).status, status, path);
    client.destroy();
  }
  // h2c is what curl and some proxies ask for unasked.
  const client = await RawClient.open(port);
  const h2c = { Connection: 'Upgrade, HTTP2-Settings', Upgrade: 'h2c', 'HTTP2-Settings': 'AAMAAABkAAQ' };
  t.equal((await client.request('GET', '/', h2c).response()).status, 200);
  client.destroy();
  t.match(await service.status(), { rejected: { total: 0 } });
});

t.test('its taker gets the socket, what came behind the head, and the parameters', async (t) => {
  const doors = new Doors();
  const { port, service, operator } = await running(t, { app: echoing(doors) });
  const client = await RawClient.open(port);
  client.write(
    'GET /socket/a%20b?x=1 HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\nearly',
  );
  const first = `${SWITCHED}a b 1 early`;
  await client.received(first.length);
  t.equal(client.pending, first);
  client.write('hello');
  await client.received(first.length + 'echo hello'.length);
  t.equal(client.pending, `${first}echo hello`);

  t.equal(service.inFlight, 1, 'an upgraded connection is in flight');
  t.match(await (await operator('/status')).json(), {
    in_flight: { count: 1, oldest: [{ path: '/socket/a%20b', phase: 'upgraded' }] },
  });
  client.socket.end();
  t.equal(await client.ended, 'fin');
  t.match(client.pending, /bye$/);
  t.match(await service.stop(), { in_flight_at_lock: 0, exit_code: 0 });
});

t.test('a taker that fails ends its connection and nothing else', async (t) => {
  const { port, service, lines } = await running(t, { app: echoing() });
  for (const [path, message] of [
    ['/fail', 'thrown in an upgrade'],
    ['/reject', 'rejected in an upgrade'],
  ]) {
    const client = await RawClient.open(port);
    client.request('GET', path as string, UPGRADE);
    await client.ended;
    t.equal(client.pending, '');
    t.ok(lines.some(({ msg }) => msg === `Handler of upgrade ${path} failed: ${message}`));
  }
  t.equal(service.state, 'running');
  t.match(await service.stop(), { in_flight_at_lock: 0, exit_code: 0 });
});

t.test('past MAX_IN_FLIGHT an upgrade gets the 503', async (t) => {
  const doors = new Doors();
  const { port } = await running(t, { app: echoing(doors), config: { maxInFlight: 1 } });
  const first = (await RawClient.open(port)).request('GET', '/socket/a', UPGRADE);
  await doors.wait('taken');
  const second = (await RawClient.open(port)).request('GET', '/socket/b', UPGRADE);
  t.match(await second.response(), { status: 503, body: /"fail_safe":false/ });
  await second.ended;
  first.destroy();
});
