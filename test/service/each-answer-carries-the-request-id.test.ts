import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import t from 'tap';
import { type Config, HttpError, sendJson } from '../../src/index.ts';
import { readRecords } from '../support/audit.ts';
import { Doors, type Embedded, running } from '../support/embedded-service.ts';
import { RawClient, type RawResponse } from '../support/raw-client.ts';

const OWN = /^[0-9a-z]{6}-[0-9a-z]+$/;
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const TRACEPARENT = `00-${TRACE}-00f067aa0ba902b7-01`;

/** All ways in which a handler can write a head. */
const HEADS: Readonly<Record<string, (response: ServerResponse) => void>> = {
  implicit: (response) => response.end('x'),
  streamed: (response) => {
    response.write('x');
    response.end();
  },
  flushed: (response) => {
    response.flushHeaders();
    response.end('x');
  },
  object: (response) => response.writeHead(201, { 'Content-Type': 'text/plain' }).end('x'),
  reason: (response) => response.writeHead(200, 'Fine', { 'X-Own': '1' }).end('x'),
  list: (response) => response.writeHead(200, ['Content-Type', 'text/plain']).end('x'),
  pairs: (response) => response.writeHead(200, [['X-Own', 'X-Request-Id']] as never).end('x'),
  set: (response) => response.setHeader('Content-Type', 'text/plain').end('x'),
  both: (response) => response.setHeader('X-Own', '1').writeHead(200, { 'X-Other': '2' }).end('x'),
  exposed: (response) => response.writeHead(200, ['Access-Control-Expose-Headers', 'X-Request-Id']).end('x'),
  empty: (response) => response.writeHead(204).end(),
};

/** Ways in which a handler can set the field itself. */
const OWN_HEADS: Readonly<Record<string, (response: ServerResponse) => void>> = {
  object: (response) => response.writeHead(200, { 'x-request-ID': 'its own' }).end('x'),
  list: (response) => response.writeHead(200, ['X-Request-Id', 'its own']).end('x'),
  pairs: (response) => response.writeHead(200, [['X-Request-Id', 'its own']] as never).end('x'),
  set: (response) => response.setHeader('X-Request-Id', 'its own').end('x'),
};

function start(
  t: Parameters<typeof running>[0],
  doors: Doors,
  config: Partial<Config> = {},
): Promise<Embedded> {
  return running(t, {
    config: { auditLog: undefined, ...config },
    app: {
      routes(router) {
        for (const [name, write] of Object.entries(HEADS))
          router.get(`/heads/${name}`, (_request, response) => write(response));
        for (const [name, write] of Object.entries(OWN_HEADS))
          router.get(`/own/${name}`, (_request, response) => write(response));
        router.get('/id', (_request, response, { id, trace, client, log }) => {
          log.info('in the handler');
          sendJson(response, 200, { id, trace, client });
        });
        router.get('/fails', () => {
          throw new Error('broken');
        });
        router.get('/teapot', () => {
          throw new HttpError(418, 'a teapot');
        });
        router.get('/hold', async (_request, response) => {
          doors.open('held');
          await doors.wait('release');
          sendJson(response, 200, {});
        });
      },
    },
  });
}

/** The ids in the fields of an answer, which are all there is of them on the wire. */
function idsIn(head: string): string[] {
  return [...head.matchAll(/^x-request-id: (.*)\r$/gim)].map(([, id = '']) => id);
}

t.test('whatever a handler does, and whatever goes wrong, the answer has one id', async (t) => {
  const made = await start(t, new Doors());
  const seen = new Set<string>();
  const paths = [
    ...Object.keys(HEADS).map((name) => `/heads/${name}`),
    '/fails',
    '/teapot',
    '/nowhere',
    '/health',
  ];
  for (const method of ['GET', 'HEAD', 'OPTIONS', 'DELETE']) {
    for (const path of paths) {
      const client = await RawClient.open(made.port);
      client.request(method, path, { Connection: 'close' });
      const [head = ''] = (await client.rest()).split('\r\n\r\n', 1);
      const [id = '', ...more] = idsIn(`${head}\r\n`);
      t.strictSame(more, [], `${method} ${path}`);
      t.match(id, OWN, `${method} ${path}`);
      seen.add(id);
    }
  }
  t.equal(seen.size, 4 * paths.length, 'each its own');
  for (const [request, status] of [
    ['nonsense\r\n\r\n', 400],
    ['GET /id HTTP/1.1\r\n\r\n', 400],
    ['GET /id HTTP/2.0\r\nHost: a\r\n\r\n', 505],
    [`GET /${'x'.repeat(20_000)} HTTP/1.1\r\nHost: a\r\n\r\n`, 414],
    ['POST /id HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n', 400],
    ['GET /id HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nConnection: close\r\n\r\n', 417],
    ['CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n', 400],
  ] as const) {
    const answer = await (await RawClient.open(made.port)).write(request).response();
    t.equal(answer.status, status, request.slice(0, 40));
    t.match(answer.headers['x-request-id'], OWN);
  }
  for (const name of Object.keys(OWN_HEADS)) {
    const answer = await (await RawClient.open(made.port)).get(`/own/${name}`).response();
    t.equal(answer.headers['x-request-id'] ?? answer.headers['x-request-ID'], 'its own', name);
  }
  for (const path of ['/livez', '/status', '/nowhere'])
    t.match((await made.operator(path)).headers.get('x-request-id'), OWN, `the ops server's ${path}`);
});

t.test('log, audit log and status name the request by the id in its answer', async (t) => {
  const doors = new Doors();
  const made = await start(t, doors);
  const answer = await made.ask('/id', { headers: { traceparent: TRACEPARENT } });
  const id = answer.headers.get('x-request-id') ?? '';
  t.strictSame(await answer.json(), { id, trace: TRACE, client: '127.0.0.1' });
  t.match(await made.line('in the handler'), { request: id, trace: TRACE });
  const failed = (await made.ask('/fails')).headers.get('x-request-id');
  t.match(await made.line('Handler of GET /fails failed'), { request: failed });

  const busy = (await RawClient.open(made.port)).get('/hold');
  await doors.wait('held');
  const [oldest] = made.service.status().in_flight.oldest;
  doors.open('release');
  t.equal(oldest?.id, (await busy.response()).headers['x-request-id']);
  await made.service.stop();
  const records = readRecords(join(made.stateDir, 'audit.ndjson'), 'request');
  t.match(
    records.map(({ id, path, trace, own_id }) => ({ id, path, trace, own_id })),
    [
      { id, path: '/id', trace: TRACE, own_id: undefined },
      { id: failed, path: '/fails', trace: undefined },
      { path: '/hold' },
    ],
  );
});

t.test('while it stops each 503 has an id of its own, and its body has no field more', async (t) => {
  const doors = new Doors();
  const made = await start(t, doors, { trustedProxies: '127.0.0.1' });
  const busy = (await RawClient.open(made.port)).get('/hold');
  await doors.wait('held');
  const idle = await RawClient.open(made.port);
  const half = (await RawClient.open(made.port)).write('GET /id HTTP/1.1\r\nHo');
  await half.connected();
  const ambiguous = await RawClient.open(made.port);
  const stopped = made.service.stop();
  idle.request('POST', '/id', { 'X-Request-Id': 'from.the:proxy_1', 'Content-Length': '0' });
  const given = await idle.response();
  t.equal(given.headers['x-request-id'], 'from.the:proxy_1');
  const answers: RawResponse[] = [
    given,
    await ambiguous.write('GET /id HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n').response(),
    await (await RawClient.open(made.port)).get('/id').response(),
  ];
  doors.open('release');
  t.match((await busy.response()).headers['x-request-id'], OWN);
  answers.push(await half.response());
  for (const { status, headers, body } of answers) {
    t.equal(status, 503);
    t.ok(headers['x-request-id']);
    t.strictSame(Object.keys(JSON.parse(body)), ['error', 'message', 'service_state', 'fail_safe']);
  }
  t.equal(new Set(answers.map(({ headers }) => headers['x-request-id'])).size, answers.length);
  await stopped;
});

t.test('an id is taken from a trusted proxy alone, and only if it can stand anywhere', async (t) => {
  const trusting = await start(t, new Doors(), { trustedProxies: '10.0.0.0/8,127.0.0.1' });
  const idOf = async (made: Embedded, given: string): Promise<string | undefined> =>
    (await (await RawClient.open(made.port)).request('GET', '/id', { 'X-Request-Id': given }).response())
      .headers['x-request-id'];
  for (const good of ['a', '550e8400-e29b-41d4-a716-446655440000', 'A.b_c:d-9', 'x'.repeat(128)])
    t.equal(await idOf(trusting, good), good);
  for (const bad of ['', 'x'.repeat(129), 'a b', 'a"b', 'a,b', 'ä', '<script>', 'a/b'])
    t.match(await idOf(trusting, bad), OWN, bad);
  const twice = await RawClient.open(trusting.port);
  twice.write('GET /id HTTP/1.1\r\nHost: a\r\nX-Request-Id: one\r\nX-Request-Id: two\r\n\r\n');
  t.match((await twice.response()).headers['x-request-id'], OWN);

  await trusting.service.stop();
  const [given] = readRecords(join(trusting.stateDir, 'audit.ndjson'), 'request');
  t.equal(given?.id, 'a');
  t.match(given?.own_id, OWN, 'a proxy may give several requests one id');

  const alone = await start(t, new Doors());
  t.match(await idOf(alone, 'from-anybody'), OWN);
  const elsewhere = await start(t, new Doors(), { trustedProxies: '10.0.0.0/8' });
  t.match(await idOf(elsewhere, 'from-anybody'), OWN);
});

t.test('ids count on without a gap or a repetition', async (t) => {
  const { ownId, RUN } = await import('../../src/server/request-id.ts');
  for (const number of [1, 35, 36, 1295, 1296, 1297, 46_655, 46_656, 1_679_615, 1_679_616, 123_456_789])
    t.equal(ownId(number), `${RUN}-${number.toString(36)}`);
});
