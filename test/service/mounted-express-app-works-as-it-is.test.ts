import type { IncomingMessage, ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import t from 'tap';
import { defineApp, type Mountable, sendJson } from '../../src/index.ts';
import { running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';

// Express ships no types; what is used of it is written out here.
interface ExpressRequest extends IncomingMessage {
  readonly originalUrl: string;
  readonly baseUrl: string;
  readonly params: Record<string, string>;
  readonly query: unknown;
  readonly body: unknown;
}
interface ExpressResponse extends ServerResponse {
  json(value: unknown): void;
  status(code: number): this;
}
type ExpressHandler = (request: ExpressRequest, response: ExpressResponse) => void;
type ExpressApp = Mountable & {
  use(handler: unknown): void;
  get(path: string, handler: ExpressHandler): void;
  post(path: string, handler: ExpressHandler): void;
};
const express: (() => ExpressApp) & { json(): unknown } = createRequire(import.meta.url)('express');

function legacyApp(): ExpressApp {
  const app = express();
  app.use(express.json());
  app.get('/', (_request, response) => response.json({ root: true }));
  app.get('/orders/:id', ({ params, query, url, baseUrl, originalUrl, headers }, response) =>
    response.json({ params, query, url, baseUrl, originalUrl, id: headers['x-request-id'] }),
  );
  app.post('/orders', ({ body }, response) => response.status(201).json({ got: body }));
  app.get('/throws', () => {
    throw Object.assign(new Error('thrown in Express'), { status: 418, expose: true });
  });
  return app;
}

t.test('an Express app below a prefix works as it is', async (t) => {
  const { ask, port, service } = await running(t, {
    app: defineApp({
      routes(router) {
        router.mount('/legacy', legacyApp());
        router.get('/legacy/own', (_request, response) => sendJson(response, 200, { own: true }));
      },
    }),
  });

  t.strictSame(await (await ask('/legacy')).json(), { root: true });
  const order = await ask('/legacy/orders/a%20b?page=2&sort=up', { headers: { 'X-Request-Id': 'mine' } });
  const id = order.headers.get('x-request-id');
  t.match(id, /^[0-9a-z]{6}-/, 'Express gives the response another prototype');
  t.strictSame(await order.json(), {
    params: { id: 'a b' },
    query: { page: '2', sort: 'up' },
    url: '/orders/a%20b?page=2&sort=up',
    baseUrl: '/legacy',
    originalUrl: '/legacy/orders/a%20b?page=2&sort=up',
    id,
  });
  t.strictSame(await (await ask('/legacy/own')).json(), { own: true }, 'a route below the prefix goes first');

  const json = { method: 'POST', headers: { 'content-type': 'application/json' } };
  const posted = await ask('/legacy/orders', { ...json, body: '{"items":[1,2]}' });
  t.equal(posted.status, 201);
  t.strictSame(await posted.json(), { got: { items: [1, 2] } }, 'its own body parser reads the body');
  t.equal((await ask('/legacy/orders', { ...json, body: '{' })).status, 400);

  const missing = await ask('/legacy/nowhere');
  t.equal(missing.status, 404);
  t.match(await missing.text(), 'Cannot GET /legacy/nowhere', 'the 404 is its own');
  t.equal((await ask('/legacy/throws')).status, 418, 'and so is its error handling');
  const options = await ask('/legacy/orders/7', { method: 'OPTIONS' });
  t.equal(options.headers.get('allow'), 'GET, HEAD', 'it is given every method');
  t.match(await (await ask('/nowhere')).json(), { error: 'Not Found' }, 'outside of it the 404 is ours');

  const client = await RawClient.open(port);
  const head = await client.request('HEAD', '/legacy/orders/7').response({ head: true });
  t.equal(head.status, 200);
  t.equal((await client.get('/legacy').response()).status, 200, 'the connection is kept');
  client.destroy();

  // Express gives requests and responses prototypes of its own.
  const { in_flight_at_lock, exit_code } = await service.stop('the test');
  t.strictSame(
    { in_flight_at_lock, exit_code },
    { in_flight_at_lock: 0, exit_code: 0 },
    'none is left in flight',
  );
});

t.test('a bare handler can be mounted at the root, and learns of what it throws as anybody', async (t) => {
  const { ask, lines } = await running(t, {
    app: {
      routes(router) {
        router.mount('/', async (request, response) => {
          if (request.url === '/fail') throw new Error('thrown in a mount');
          sendJson(response, 200, { url: request.url });
        });
      },
    },
  });
  t.strictSame(await (await ask('/any/where?x=1')).json(), { url: '/any/where?x=1' });
  t.match(await (await ask('/health')).json(), { status: 'healthy' }, "the service's own routes go first");
  t.equal((await ask('/fail')).status, 500);
  t.match(
    lines.find(({ level }) => level === 'error'),
    { msg: 'Handler of GET /* failed: thrown in a mount' },
  );
});
