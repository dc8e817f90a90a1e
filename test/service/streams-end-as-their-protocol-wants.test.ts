import { once } from 'node:events';
import { createServer, request as httpRequest, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import t from 'tap';
import { closeOnStop, type EventStream, sse } from '../../src/index.ts';
import { running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess } from '../support/service-process.ts';
import { openSocket } from '../support/streams.ts';

const APP = join(ROOT, 'test/fixtures/streams-app.mjs');

async function ask(port: number, path: string, method = 'GET'): Promise<IncomingMessage> {
  const request = httpRequest({ port, host: '127.0.0.1', path, method }).end();
  const [response] = await once(request, 'response');
  response.setEncoding('utf8');
  return response;
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response) text += chunk;
  return text;
}

t.test('events are framed, a heartbeat shows life, and a stop says when to come back', async (t) => {
  let stream: EventStream | undefined;
  const made = await running(t, {
    app: {
      routes: (router) =>
        router.get('/events', async (_request, response) => {
          stream = sse(response, { retryMs: 700, heartbeatMs: 20, headers: { 'X-Own': 'yes' } });
          t.equal(await stream.send({ data: 'one\r\ntwo\nthree\rfour' }), true);
          t.equal(await stream.send({ event: 'order', id: '17', data: { paid: true } }), true);
        }),
    },
  });
  const response = await ask(made.port, '/events');
  t.match(response.headers, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    connection: 'close',
    'x-own': 'yes',
  });
  let text = '';
  for await (const chunk of response) {
    text += chunk;
    if (text.includes(':\n\n') && made.service.state === 'running') void made.service.stop();
  }
  t.equal(response.complete, true, 'whole');
  t.match(
    text.replaceAll(/^:\n\n/gm, ''),
    /^retry: 700\n\ndata: one\ndata: two\ndata: three\ndata: four\n\nevent: order\nid: 17\ndata: {"paid":true}\n\n: the service stops\nretry: 700\n\n$/,
  );
  t.equal(stream?.signal.aborted, true);
  t.equal(await stream?.send({ data: 'late' }), false);
  t.equal((await made.service.stopped).exit_code, 0);
});

t.test('an event waits for a client that reads slowly, and ends when the client is gone', async (t) => {
  let sent = 0;
  const over = new Promise<void>((resolve) => {
    void running(t, {
      app: {
        routes: (router) =>
          router.get('/events', async (_request, response) => {
            const stream = sse(response);
            while (await stream.send({ data: 'x'.repeat(65_536) })) sent += 1;
            resolve();
          }),
      },
    }).then(async (made) => {
      const client = await RawClient.open(made.port);
      client.socket.pause();
      client.get('/events');
      let before = -1;
      // The kernel takes some; then nothing more is sent.
      while (sent === 0 || before !== sent) {
        before = sent;
        await new Promise((next) => setTimeout(next, 100));
      }
      client.destroy();
    });
  });
  await over;
  t.ok(sent < 1_000, `${sent} events of 64 KiB`);
});

t.test('HEAD has no stream, and without our gate a stream goes on by itself', async (t) => {
  const made = await running(t, {
    app: { routes: (router) => router.get('/', (_, response) => void sse(response)) },
  });
  const head = await ask(made.port, '/', 'HEAD');
  t.equal(await textOf(head), '');
  const server = createServer((_request, response) => {
    const stream = sse(response);
    void stream.send({ data: 'here' }).then(() => stream.end());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const { port } = server.address() as { port: number };
  t.equal(await textOf(await ask(port, '/')), 'retry: 5000\n\ndata: here\n\n');
});

t.test('what is wrong is named', async (t) => {
  const told: unknown[] = [];
  const made = await running(t, {
    app: {
      routes: (router) =>
        router.get('/', async (_request, response, context) => {
          for (const options of [{ retryMs: -1 }, { heartbeatMs: 0.5 }])
            t.throws(() => sse(response, options), {
              name: 'RangeError',
              message: /^sse: (retry|heartbeat)Ms: want /,
            });
          const { socket } = response.req;
          for (const [options, message] of [
            [{ code: 1006 }, 'closeOnStop: code: want a close code that may be sent (1001, 1012), got 1006'],
            [{ code: 2000 }, 'closeOnStop: code: want a close code that may be sent (1001, 1012), got 2000'],
            [{ reason: 'é'.repeat(62) }, 'closeOnStop: reason: want at most 123 bytes, got 124'],
          ] as const)
            t.throws(() => closeOnStop(context, socket, options), { name: 'RangeError', message });
          const stream = sse(response);
          for (const event of [{ data: undefined }, { data: '', id: 'a\nb' }, { data: '', event: 'a\0' }])
            await stream.send(event).catch((error: unknown) => told.push(error));
          stream.end();
        }),
    },
  });
  await textOf(await ask(made.port, '/'));
  t.match(told, [
    /^TypeError: sse: data: want text or what JSON has, got undefined$/,
    /^TypeError: sse: id: want one line of text, got "a\\nb"$/,
    /^TypeError: sse: event: want one line of text, got "a\\u0000"$/,
  ]);
});

t.test(
  'a WebSocket of a plain upgrade handler is closed with a code; who does not answer is cut off',
  async (t) => {
    const service = await ServiceProcess.running(t, { args: [APP] });
    const [polite, deaf, chat] = await Promise.all([
      openSocket(service.port, '/raw'),
      RawClient.open(service.port),
      openSocket(service.port, '/chat'),
    ]);
    deaf.request('GET', '/raw', {
      ...{ Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13' },
      'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    });
    t.equal((await deaf.answer()).status, 101);
    service.signal('SIGTERM');
    t.match(await polite.ended, { code: 1001, reason: 'going away' });
    t.match(await chat.ended, { code: 1012, reason: 'service restart' });
    t.equal(await deaf.rest(), '\x88\x0c\x03\xe9going away', 'the frame: FIN, close, 12 bytes, 1001');
    t.strictSame(
      await service.exited,
      { code: 0, signal: null },
      'it keeps its side open, and does not hold the drain',
    );
    t.match(service.report(), { completed: 3, cut: [] });
  },
);
