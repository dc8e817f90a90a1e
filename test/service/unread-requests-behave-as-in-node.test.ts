import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Writable } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';

/** Answers, and tells what it has seen of the request, in order. */
type Case = (request: IncomingMessage, response: ServerResponse) => Promise<readonly unknown[]>;

/** Hears what the request emits from here on, until it is closed. */
async function events(request: IncomingMessage, ...names: string[]): Promise<string[]> {
  const seen: string[] = [];
  for (const name of names) request.on(name, () => seen.push(name));
  await once(request, 'close');
  return seen;
}

async function collect(request: IncomingMessage): Promise<number> {
  let bytes = 0;
  for await (const chunk of request) bytes += chunk.length;
  return bytes;
}

/** Until all is told of an exchange that node:http tells by itself. */
async function over(response: ServerResponse): Promise<void> {
  if (!response.closed) await once(response, 'close');
  for (let turns = 0; turns < 5; turns += 1) await turn();
}

function stateOf({ readable, readableEnded, destroyed, closed, complete, aborted }: IncomingMessage): object {
  return { readable, readableEnded, destroyed, closed, complete, aborted };
}

const cases: Readonly<Record<string, Case>> = {
  'listeners that are there before the answer': async (request, response) => {
    const seen = events(request, 'data', 'end', 'close', 'error');
    response.end('answer');
    return seen;
  },
  'one listener for the close': async (request, response) => {
    const closed = once(request, 'close');
    response.end('answer');
    return closed;
  },
  'listeners that come with the end of the answer': async (request, response) => {
    response.end('answer');
    return new Promise((resolve) => response.on('finish', () => resolve(events(request, 'end', 'close'))));
  },
  'listeners that come with the close of the answer': async (request, response) => {
    response.end('answer');
    await new Promise<void>((resolve) => {
      response.on('close', () => request.prependListener('close', resolve));
    });
    return ['close'];
  },
  'finished() before the answer': async (request, response) => {
    const done = finished(request);
    response.end('answer');
    return [await done];
  },
  'finished() after all is over': async (request, response) => {
    response.end('answer');
    await over(response);
    return [await finished(request)];
  },
  'for await before the answer': async (request, response) => {
    const bytes = await collect(request);
    response.end('answer');
    return [bytes];
  },
  'for await behind the answer': async (request, response) => {
    response.end('answer');
    return [await collect(request)];
  },
  'for await after all is over': async (request, response) => {
    response.end('answer');
    await over(response);
    return [await collect(request).catch((error: NodeJS.ErrnoException) => error.code)];
  },
  'a pipeline behind the answer': async (request, response) => {
    let bytes = 0;
    const count = new Writable({
      write(chunk, _encoding, done) {
        bytes += chunk.length;
        done();
      },
    });
    response.end('answer');
    await new Promise((resolve) => response.on('finish', () => resolve(pipeline(request, count))));
    return [bytes];
  },
  'readable and read()': async (request, response) => {
    let bytes = 0;
    request.on('readable', () => {
      for (let chunk = request.read(); chunk !== null; chunk = request.read()) bytes += chunk.length;
    });
    await once(request, 'end');
    response.end('answer');
    return [bytes];
  },
  'read() after all is over': async (request, response) => {
    response.end('answer');
    await over(response);
    return [request.read(), request.read(0)];
  },
  'resume() without a listener, long before the answer': async (request, response) => {
    await turn();
    request.resume();
    await turn();
    response.end('answer');
    await over(response);
    return [stateOf(request)];
  },
  'a paused request': async (request, response) => {
    request.pause();
    response.end('answer');
    await over(response);
    return [stateOf(request), request.isPaused()];
  },
  'what it says of itself once all is over': async (request, response) => {
    const before = stateOf(request);
    response.end('answer');
    await over(response);
    return [before, stateOf(request)];
  },
  'destroy() after all is over': async (request, response) => {
    response.end('answer');
    await over(response);
    request.destroy();
    await turn();
    return [stateOf(request), request.socket.destroyed];
  },
};

const LONGEST_MS = 5_000;

const BODIES = { 'GET without a body': 0, 'POST with a body': 5, 'POST with a large body': 200_000 };

t.test('a handler sees of its request what it sees on bare node:http', async (t) => {
  let seen: (notes: Promise<readonly unknown[]>) => void = () => undefined;
  const handler = (request: IncomingMessage, response: ServerResponse): void => {
    const name = decodeURIComponent(request.url?.slice(1) ?? '');
    seen((cases[name] as Case)(request, response));
  };
  const bare = createServer(handler).listen(0, '127.0.0.1');
  await once(bare, 'listening');
  t.teardown(() => bare.closeAllConnections());
  t.teardown(() => bare.close());
  const ours = await running(t, {
    app: { routes: (router) => router.get('/:case', handler).post('/:case', handler) },
  });

  /** What the handler has seen, and what the client has got on one connection: the answer, and the one after it. */
  async function play(port: number, name: string, bytes: number): Promise<readonly unknown[]> {
    const client = await RawClient.open(port);
    const answers: unknown[] = [];
    const notes: unknown[] = [];
    for (let times = 0; times < 2; times += 1) {
      const asked = new Promise<readonly unknown[]>((resolve) => {
        seen = (told) => resolve(told);
      });
      const head = { 'content-length': String(bytes) };
      client.request(bytes === 0 ? 'GET' : 'POST', `/${encodeURIComponent(name)}`, bytes === 0 ? {} : head);
      client.write('x'.repeat(bytes));
      const { status, body } = await client.response();
      answers.push([status, body]);
      // Node tells nothing of some of these, so the time is short.
      notes.push(await Promise.race([asked, delay(LONGEST_MS, 'nothing')]));
    }
    client.destroy();
    return [...notes, ...answers];
  }

  for (const [kind, bytes] of Object.entries(BODIES)) {
    for (const name of Object.keys(cases)) {
      const expected = await play((bare.address() as AddressInfo).port, name, bytes);
      t.strictSame(await play(ours.port, name, bytes), expected, `${kind}: ${name}`);
    }
  }
});

t.test('pipelined requests that nobody reads are answered in order, and end each', async (t) => {
  const ended: string[] = [];
  const { port } = await running(t, {
    app: {
      routes: (router) =>
        router.get('/:name', async (request, response, { params }) => {
          const name = params.name ?? '';
          if (name === 'heard') request.on('end', () => ended.push(name));
          await turn();
          response.end(name);
        }),
    },
  });
  const client = await RawClient.open(port);
  const names = ['a', 'heard', 'b', 'heard', 'c'];
  client.write(names.map((name) => `GET /${name} HTTP/1.1\r\nHost: a\r\n\r\n`).join(''));
  for (const name of names) t.equal((await client.response()).body, name);
  t.equal((await client.get('/last').response()).body, 'last', 'the connection goes on');
  t.strictSame(ended, ['heard', 'heard']);
  client.destroy();
});

t.test('a request that nobody reads or hears ends in silence', async (t) => {
  const emitted: unknown[] = [];
  let done: (response: ServerResponse) => void = () => undefined;
  const answered = new Promise<ServerResponse>((resolve) => {
    done = resolve;
  });
  const { ask } = await running(t, {
    app: {
      routes: (router) =>
        router.get('/', (request, response) => {
          const { emit } = request;
          request.emit = (event: string | symbol, ...args: unknown[]): boolean => {
            emitted.push(event);
            return Reflect.apply(emit, request, [event, ...args]);
          };
          response.end('answer');
          done(response);
        }),
    },
  });
  t.equal(await (await ask('/')).text(), 'answer');
  await over(await answered);
  // `readable` is the parser's, when the head has come.
  t.strictSame(
    emitted.filter((event) => event !== 'readable'),
    [],
  );
});
