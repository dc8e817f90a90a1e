import { once } from 'node:events';
import { connect } from 'node:net';
import t from 'tap';
import { type App, sendJson } from '../../src/index.ts';
import { running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';

const app: App = {
  routes(router) {
    router.get('/', (_request, response) => sendJson(response, 200, {}));
    router.post('/upload', async (request, response) => {
      for await (const _ of request);
      sendJson(response, 200, {});
    });
  },
};

const UNREADABLE = 'The request could not be read.';

t.test('HEADERS_TIMEOUT: a head that does not come in time gets 408', async (t) => {
  const { port } = await running(t, { app, config: { headersTimeoutMs: 1000 } });
  const client = (await RawClient.open(port)).write('GET / HTTP/1.1\r\nHost: te');
  const answer = await client.response();
  t.equal(answer.status, 408);
  t.equal(answer.headers.connection, 'close');
  t.strictSame(JSON.parse(answer.body), { error: 'Request Timeout', message: UNREADABLE });
  t.equal(await client.ended, 'fin');
});

t.test('REQUEST_TIMEOUT: a body that does not come in time gets 408, and its handler ends', async (t) => {
  const { port, service } = await running(t, { app, config: { requestTimeoutMs: 1000 } });
  const client = (await RawClient.open(port))
    .request('POST', '/upload', { 'Content-Length': '10' })
    .write('x');
  t.equal((await client.response()).status, 408);
  await client.ended;
  t.match(await service.stop(), { in_flight_at_lock: 0, exit_code: 0 });
});

t.test('REQUEST_TIMEOUT is for the request alone: an answer may take longer', async (t) => {
  let answer: () => void = () => undefined;
  const { port } = await running(t, {
    app: {
      routes: (router) =>
        router.get('/slow', (_request, response) => {
          answer = () => sendJson(response, 200, {});
        }),
    },
    config: { requestTimeoutMs: 1000, headersTimeoutMs: 1000 },
  });
  const slow = (await RawClient.open(port)).get('/slow');
  // The time-out of another connection shows that the time is over.
  t.equal((await (await RawClient.open(port)).write('GET').response()).status, 408);
  answer();
  t.equal((await slow.response()).status, 200);
  slow.destroy();
});

t.test('KEEP_ALIVE_TIMEOUT: an idle connection is closed, a busy one is not', async (t) => {
  const { port } = await running(t, { app, config: { keepAliveTimeoutMs: 1000 } });
  const client = await RawClient.open(port);
  const first = await client.get('/').response();
  t.match(first.headers, { connection: 'keep-alive', 'keep-alive': 'timeout=1' });
  t.equal((await client.get('/').response()).status, 200);
  t.equal(await client.ended, 'fin');
});

t.test('MAX_CONNECTIONS: one more is dropped, and the others are served', async (t) => {
  const { port } = await running(t, { app, config: { maxConnections: 2 } });
  const first = await RawClient.open(port);
  const second = await RawClient.open(port);
  t.equal((await first.get('/').response()).status, 200);
  t.equal((await second.get('/').response()).status, 200);
  const third = connect(port, '127.0.0.1').on('error', () => undefined);
  await once(third, 'close');
  t.equal((await first.get('/').response()).status, 200);
  first.destroy();
  second.destroy();
});

t.test('MAX_HEADER_BYTES: a larger head gets 431', async (t) => {
  const { port } = await running(t, { app, config: { maxHeaderBytes: 2048 } });
  const client = await RawClient.open(port);
  t.equal((await client.request('GET', '/', { X: 'x'.repeat(1500) }).response()).status, 200);
  const answer = await client.request('GET', '/', { X: 'x'.repeat(2048) }).response();
  t.equal(answer.status, 431);
  t.strictSame(JSON.parse(answer.body), { error: 'Request Header Fields Too Large', message: UNREADABLE });
  t.equal(await client.ended, 'fin');
});

t.test('MAX_REQUESTS_PER_SOCKET: the last one says that it is the last', async (t) => {
  const { port } = await running(t, { app, config: { maxRequestsPerSocket: 2 } });
  const client = await RawClient.open(port);
  t.match(await client.get('/').response(), { status: 200, headers: { connection: 'keep-alive' } });
  t.match(await client.get('/').response(), { status: 200, headers: { connection: 'close' } });
  t.equal(await client.ended, 'fin');
});

t.test('0 is no limit', async (t) => {
  const { port, service } = await running(t, {
    app,
    config: {
      ...{ headersTimeoutMs: 0, requestTimeoutMs: 0, maxConnections: 0, maxRequestsPerSocket: 0 },
      maxInFlight: 0,
    },
  });
  t.equal(service.server.headersTimeout, 0);
  t.equal(service.server.requestTimeout, 0);
  const clients = await Promise.all(Array.from({ length: 20 }, () => RawClient.open(port)));
  for (const client of clients) {
    for (let index = 0; index < 3; index += 1) t.equal((await client.get('/').response()).status, 200);
  }
  for (const client of clients) client.destroy();
});
