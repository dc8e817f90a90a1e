import type { ServerResponse } from 'node:http';
import { STATUS_CODES } from 'node:http';
import t from 'tap';
import { type App, HttpError, readJson, sendJson } from '../../src/index.ts';
import { Doors, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';

const LIMIT = 100;
const app: App = {
  routes(router) {
    router.get('/json', (_request, response) => {
      response.setHeader('X-Before', 'kept');
      sendJson(response, 201, { text: 'größer', list: [1, null] });
    });
    router.post('/echo', async (request, response) =>
      sendJson(response, 200, { got: await readJson(request, { limit: LIMIT }) }),
    );
    router.post('/default', async (request, response) => {
      await readJson(request);
      sendJson(response, 200, {});
    });
    router.get('/error/:status', (_request, response, { params }) => {
      response.setHeader('X-Before', 'dropped');
      throw new HttpError(Number(params.status), 'For the client.');
    });
  },
};

t.test('sendJson answers with length and type, and keeps what was set before', async (t) => {
  const { ask } = await running(t, { app });
  const answer = await ask('/json');
  t.equal(answer.status, 201);
  t.equal(answer.headers.get('content-type'), 'application/json; charset=utf-8');
  t.equal(answer.headers.get('x-before'), 'kept');
  const body = Buffer.from(await answer.arrayBuffer());
  t.equal(Number(answer.headers.get('content-length')), body.length);
  t.strictSame(JSON.parse(body.toString()), { text: 'größer', list: [1, null] });
});

t.test('readJson takes JSON by any of its types, and nothing else', async (t) => {
  const { ask } = await running(t, { app });
  const send = async (type: string | undefined, body: string): Promise<[number, unknown]> => {
    const headers: Record<string, string> = type === undefined ? {} : { 'content-type': type };
    // A string would be given a type by fetch; bytes are not.
    const answer = await ask('/echo', { method: 'POST', headers, body: Buffer.from(body) });
    return [answer.status, await answer.json()];
  };
  for (const type of [
    'application/json',
    'application/json; charset=utf-8',
    'Application/JSON',
    'application/problem+json',
  ]) {
    t.strictSame(await send(type, '{"a":"ä"}'), [200, { got: { a: 'ä' } }], type);
  }
  const wrongType = {
    error: 'Unsupported Media Type',
    message: 'The body must be JSON, with Content-Type: application/json.',
  };
  for (const type of [undefined, 'text/plain', 'application/jsonx', 'application/x-www-form-urlencoded']) {
    t.strictSame(await send(type, '{}'), [415, wrongType], type ?? 'none');
  }
  const malformed = { error: 'Bad Request', message: 'The body is not valid JSON.' };
  for (const body of ['{', '', 'undefined', '{"a":1}x']) {
    t.strictSame(await send('application/json', body), [400, malformed], JSON.stringify(body));
  }
  for (const [body, value] of [
    ['null', null],
    ['"x"', 'x'],
    [' [1] ', [1]],
  ] as const) {
    t.strictSame(await send('application/json', body), [200, { got: value }], body);
  }
});

t.test('a body past the limit gets 413, declared or streamed, and the connection lives on', async (t) => {
  const { port } = await running(t, { app });
  const client = await RawClient.open(port);
  const tooLarge = {
    status: 413,
    body: JSON.stringify({
      error: STATUS_CODES[413],
      message: `The body must not be larger than ${LIMIT} bytes.`,
    }),
  };
  const type = { 'Content-Type': 'application/json' };
  const text = (bytes: number): string => JSON.stringify('x'.repeat(bytes - 2));

  // Declared: refused before a byte of it has come.
  client.request('POST', '/echo', { ...type, 'Content-Length': String(LIMIT + 1) });
  t.match(await client.response(), tooLarge);
  client.write(text(LIMIT + 1));
  t.equal((await client.get('/json').response()).status, 201);

  // Streamed: refused at the byte that is too many, and what still comes is dropped.
  client.request('POST', '/echo', { ...type, 'Transfer-Encoding': 'chunked' });
  const chunk = `40\r\n${'x'.repeat(0x40)}\r\n`;
  client.write(chunk).write(chunk);
  t.match(await client.response(), tooLarge);
  client.write(chunk).write('0\r\n\r\n');
  t.equal((await client.get('/json').response()).status, 201);

  // Exactly at the limit it is not past it.
  client.request('POST', '/echo', { ...type, 'Content-Length': String(LIMIT) }).write(text(LIMIT));
  t.equal((await client.response()).status, 200);
  client.request('POST', '/echo', { ...type, 'Transfer-Encoding': 'chunked' });
  client.write(`${LIMIT.toString(16)}\r\n${text(LIMIT)}\r\n0\r\n\r\n`);
  t.equal((await client.response()).status, 200);

  const declared = String(1024 * 1024 + 1);
  client.request('POST', '/default', { ...type, 'Content-Length': declared });
  t.match(await client.response(), { status: 413, body: /1048576 bytes/ }, 'the default limit is 1 MiB');
  client.destroy();
});

t.test('a body that ends early is rejected, and no error in the log', async (t) => {
  const doors = new Doors();
  let rejected: unknown;
  const { port, lines } = await running(t, {
    app: {
      routes(router) {
        router.post('/early', async (request, response) => {
          response.once('close', () => doors.open('closed'));
          doors.open('reading');
          try {
            await readJson(request);
          } catch (error) {
            rejected = error;
            throw error;
          }
        });
      },
    },
  });
  const client = await RawClient.open(port);
  client
    .request('POST', '/early', { 'Content-Type': 'application/json', 'Content-Length': '50' })
    .write('{"a"');
  await doors.wait('reading');
  client.destroy();
  await doors.wait('closed');
  await new Promise((resolve) => setImmediate(resolve));
  t.match(rejected, { name: 'HttpError', status: 400, message: 'The body ended early.' });
  t.strictSame(
    lines.filter(({ level }) => level === 'error'),
    [],
  );
});

t.test('an HttpError is the answer, and what was set before it is gone', async (t) => {
  const { ask } = await running(t, { app });
  for (const [status, error] of [
    [400, 'Bad Request'],
    [404, 'Not Found'],
    [418, STATUS_CODES[418]],
    [503, 'Service Unavailable'],
    [599, 'Error'],
  ]) {
    const answer = await ask(`/error/${status}`);
    t.equal(answer.status, status);
    t.equal(answer.headers.get('x-before'), null);
    t.strictSame(await answer.json(), { error, message: 'For the client.' });
  }
});

t.test('an HttpError is an error, so its status is 400 to 599', async (t) => {
  for (const status of [399, 600, 200, 404.5, Number.NaN, '404' as unknown as number]) {
    t.throws(() => new HttpError(status, 'x'), {
      name: 'RangeError',
      message: `HttpError: want a status from 400 to 599, got ${status}`,
    });
  }
  t.match(new HttpError(400, 'x'), { name: 'HttpError', status: 400, message: 'x' });
  t.equal(new HttpError(599, 'x').status, 599);
});

t.test('a value that has no JSON is the handler’s mistake, not half an answer', async (t) => {
  for (const value of [undefined, 1n, () => undefined]) {
    const written: unknown[] = [];
    const response = {
      writeHead: (...args: unknown[]) => written.push(args),
      end: () => written.push('end'),
    };
    t.throws(() => sendJson(response as unknown as ServerResponse, 200, value), TypeError);
    t.strictSame(written, []);
  }
});
