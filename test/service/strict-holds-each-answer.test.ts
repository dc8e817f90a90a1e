import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import t, { type Test } from 'tap';
import { type App, sendJson } from '../../src/index.ts';
import { type AuditRecord, readRecords } from '../support/audit.ts';
import { Doors, type Embedded, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';

const express = createRequire(import.meta.url)('express');

interface Strict extends Embedded {
  readonly client: RawClient;
  /** What is on record of requests, so far. */
  records(type?: string): AuditRecord[];
}

async function strict(t: Test, routes: NonNullable<App['routes']>): Promise<Strict> {
  const made = await running(t, { app: { routes }, config: { auditLog: undefined, auditMode: 'strict' } });
  const file = join(made.stateDir, 'audit.ndjson');
  const client = await RawClient.open(made.port);
  const records = (type?: string): AuditRecord[] =>
    readRecords(file, type).filter((record) => record.type === 'request' || record.type === 'answer');
  return Object.assign(Object.create(made), { client, records });
}

t.test('what a client has of an answer is on record already', async (t) => {
  const { client, records } = await strict(t, (router) => {
    router.get('/n/:n', (_request, response, { params }) => sendJson(response, 200, params));
  });
  for (let n = 0; n < 50; n += 1) {
    t.equal((await client.get(`/n/${n}`).response()).body, `{"n":"${n}"}`);
    t.match(records().at(-1), { type: 'request', path: `/n/${n}`, status: 200, outcome: 'completed' });
  }
  t.equal(records().length, 50);
});

t.test('404, HEAD and an answer without a body too', async (t) => {
  const { client, records } = await strict(t, (router) => {
    router.get('/json', (_request, response) => sendJson(response, 200, { a: 1 }));
    router.delete('/thing', (_request, response) => response.writeHead(204).end());
  });
  t.equal((await client.get('/nowhere').response()).status, 404);
  t.match(records().at(-1), { path: '/nowhere', status: 404 });
  const head = await client.request('HEAD', '/json').response({ head: true });
  t.match(head, { status: 200, headers: { 'content-length': '7' } });
  t.match(records().at(-1), { method: 'HEAD', path: '/json', status: 200 });
  t.equal((await client.request('DELETE', '/thing').response()).status, 204);
  t.match(records().at(-1), { method: 'DELETE', status: 204 });
  t.equal(records().length, 3);
});

t.test('a stream: its first byte and its end are held, and its pieces stay in order', async (t) => {
  const doors = new Doors();
  const { client, records } = await strict(t, (router) => {
    router.get('/stream', async (_request, response) => {
      response.setHeader('X-Early', 'yes');
      response.flushHeaders();
      response.write('one ');
      response.write(Buffer.from('two '));
      await doors.wait('middle');
      response.write('three ', () => doors.open('written'));
      await doors.wait('written');
      response.end('four');
    });
  });
  client.get('/stream');
  await client.received(1);
  t.match(records(), [{ type: 'answer', path: '/stream', status: 200, outcome: 'begun' }]);
  doors.open('middle');
  const answer = await client.response();
  t.equal(answer.body, 'one two three four');
  t.equal(answer.headers['x-early'], 'yes');
  const [begun, ended, ...more] = records();
  t.match(ended, { type: 'request', status: 200, outcome: 'completed' });
  t.equal(begun?.id, ended?.id);
  t.strictSame(more, []);
});

t.test('a pipe fills and drains', async (t) => {
  const piece = Buffer.alloc(256 * 1024, 'x');
  const { client, service } = await strict(t, (router) => {
    router.get('/pipe', (_request, response) =>
      pipeline(Readable.from(new Array<Buffer>(40).fill(piece)), response),
    );
  });
  const answer = await client.get('/pipe').response();
  t.equal(answer.body.length, 40 * piece.length);
  await service.stop();
});

t.test('a handler that fails after its first byte ends the connection, as without strict', async (t) => {
  const { client, records, port } = await strict(t, (router) => {
    router.get('/half', (_request, response) => {
      response.write('half of it');
      throw new Error('failed after the head');
    });
    router.get('/late', (_request, response) => {
      sendJson(response, 200, { fine: true });
      throw new Error('failed after the end');
    });
    router.get('/thrown', () => {
      throw new Error('failed before the head');
    });
  });
  client.get('/half');
  await client.ended;
  t.notMatch(client.pending, 'half of it');
  t.notMatch(client.pending, '500');
  const next = await RawClient.open(port);
  t.match(await next.get('/late').response(), { status: 200, body: '{"fine":true}' });
  t.match(await next.get('/thrown').response(), { status: 500 });
  const half = records().filter(({ path }) => path === '/half');
  t.match(half.at(-1), { type: 'request', outcome: 'aborted' });
  t.match(records().at(-1), { path: '/thrown', status: 500, outcome: 'completed' });
});

t.test('what node:http does not write is the failure of the handler, not of the service', async (t) => {
  const { client, records, service, lines, port } = await strict(t, (router) => {
    router.get('/number', (_request, response) => void response.end(123 as never));
    router.get('/null', (_request, response) => {
      response.write(null as never);
      response.end();
    });
  });
  t.equal((await client.get('/number').response()).status, 500);
  t.match(records().at(-1), { path: '/number', status: 500, outcome: 'completed' });
  const other = (await RawClient.open(port)).get('/null');
  await other.ended;
  t.equal(service.state, 'running');
  t.equal(lines.filter(({ msg }) => msg.includes('failed: ')).length, 2);
});

t.test('a client that is gone before its answer is on record once, as aborted', async (t) => {
  const doors = new Doors();
  const { client, records, service } = await strict(t, (router) => {
    router.get('/slow', async (_request, response) => {
      doors.open('inside');
      await doors.wait('go');
      response.write('a');
      response.end('b');
      doors.open('done');
    });
  });
  client.get('/slow');
  await doors.wait('inside');
  client.destroy();
  while (service.inFlight > 0) await new Promise(setImmediate);
  doors.open('go');
  await doors.wait('done');
  await service.stop();
  t.match(records(), [{ path: '/slow', status: 0, outcome: 'aborted' }]);
});

t.test('a client that is gone while its answer is held is aborted, too', async (t) => {
  const held = new Doors();
  const { client, records, service } = await strict(t, (router) => {
    router.get('/held', (_request, response) => {
      response.end('x');
      client.destroy();
      response.socket?.destroy();
      held.open('ended');
    });
  });
  client.get('/held');
  await held.wait('ended');
  await service.stop();
  t.equal(records().at(-1)?.outcome, 'aborted');
});

t.test('pipelined answers leave in their order, each on record', async (t) => {
  const doors = new Doors();
  const { client, records } = await strict(t, (router) => {
    router.get('/first', async (_request, response) => {
      await doors.wait('first');
      sendJson(response, 200, 'first');
    });
    router.get('/second', (_request, response) => {
      sendJson(response, 200, 'second');
      doors.open('first');
    });
  });
  client.get('/first').get('/second');
  t.equal((await client.response()).body, '"first"');
  t.ok(records().some(({ path }) => path === '/first'));
  t.equal((await client.response()).body, '"second"');
  t.strictSame(
    records().map(({ path }) => path),
    ['/second', '/first'],
  );
});

t.test('an Express application, with an end after the end', async (t) => {
  const app = express();
  app.get('/twice', (_request: unknown, response: import('node:http').ServerResponse) => {
    response.end('once');
    response.end('twice');
    response.write('and more');
  });
  app.get('/json', (_request: unknown, response: { json(value: unknown): void }) => response.json({ a: 1 }));
  const { client, records } = await strict(t, (router) => router.mount('/app', app));
  t.match(await client.get('/app/twice').response(), { status: 200, body: 'once' });
  t.match(await client.get('/app/json').response(), { status: 200, body: '{"a":1}' });
  t.match(await client.get('/app/none').response(), { status: 404 });
  t.match(
    records().map(({ path, status }) => `${path} ${status}`),
    ['/app/twice 200', '/app/json 200', '/app/none 404'],
  );
});

t.test('an upgrade is on record before its first byte', async (t) => {
  const { client, records } = await strict(t, (router) => {
    router.upgrade('/socket', async (_request, socket) => {
      socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: test\r\nConnection: Upgrade\r\n\r\n');
    });
  });
  client.upgrade('/socket');
  await client.received(1);
  t.match(records()[0], { type: 'answer', path: '/socket', status: 101, outcome: 'begun' });
  await client.ended;
});
