import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t, { type Test } from 'tap';
import { type App, type Config, sendJson } from '../../src/index.ts';
import { Doors, type Embedded, running } from '../support/embedded-service.ts';
import { WorkersService } from '../support/workers-service.ts';

const MOST = 64;
const FLOOD = 60_000;
/** What one read of a socket takes from it: node:http parses all of it before it can be told to pause. */
const READ_BYTES = 64 * 1024;

setFlagsFromString('--expose-gc');
const collect: () => void = runInNewContext('gc');

interface Flood extends Embedded {
  readonly doors: Doors;
  readonly socket: Socket;
  /** Numbers that the application was given, in order. */
  readonly dispatched: number[];
  /** All that has come back. */
  readonly received: () => string;
  /** Resolves when what has come back contains so many of these. */
  readonly answers: (text: string, count: number) => Promise<void>;
}

async function flooded(t: Test, config: Partial<Config> = {}): Promise<Flood> {
  const doors = new Doors();
  const dispatched: number[] = [];
  const app: App = {
    routes(router) {
      router.get('/', (_request, response) => sendJson(response, 200, {}));
      router.get('/n/:n', async (_request, response, { params }) => {
        dispatched.push(Number(params.n));
        if (dispatched.length === 1) doors.open('first');
        await doors.wait('release');
        response.end(params.n);
      });
    },
  };
  const service = await running(t, { app, config });
  const socket = connect({ port: service.port, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => undefined);
  t.teardown(() => socket.destroy());
  let text = '';
  const wake = new Set<() => void>();
  socket.on('data', (data) => {
    text += data.toString('latin1');
    for (const look of wake) look();
  });
  await once(socket, 'connect');
  return Object.assign(Object.create(service), {
    ...{ doors, dispatched, socket },
    received: () => text,
    answers: (what: string, count: number) =>
      new Promise<void>((resolve) => {
        const look = (): void => {
          if (text.split(what).length - 1 < count) return;
          wake.delete(look);
          resolve();
        };
        wake.add(look);
        look();
      }),
  });
}

function request(n: number): string {
  return `GET /n/${n} HTTP/1.1\r\nHost: a\r\n\r\n`;
}

function requests(from: number, to: number): string {
  return Array.from({ length: to - from }, (_, at) => request(from + at)).join('');
}

/** Asks until all that was written before, as far as it is read at all, is read. */
async function othersAnswered(t: Test, { ask }: Embedded, status = 200): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) {
    const answer = await ask('/');
    if (answer.status !== status) t.equal(answer.status, status);
    await answer.arrayBuffer();
  }
}

t.test('past MAX_PIPELINED a connection is not read; others are, and memory stays flat', async (t) => {
  const flood = await flooded(t);
  await othersAnswered(t, flood);
  const text = requests(0, FLOOD);
  collect();
  const before = process.memoryUsage().heapUsed;
  flood.socket.write(text);
  await flood.doors.wait('first');
  await othersAnswered(t, flood);
  t.equal(flood.dispatched.length, MOST);
  t.equal(flood.service.inFlight, MOST);
  collect();
  const megabytes = (process.memoryUsage().heapUsed - before) / 1e6;
  t.ok(megabytes < 16, `${megabytes.toFixed(1)} MB more`);
});

t.test('all of it is answered in order as soon as there is room', async (t) => {
  const flood = await flooded(t, { maxPipelined: 3 });
  const count = 10_000;
  flood.socket.write(requests(0, count));
  await flood.doors.wait('first');
  await othersAnswered(t, flood);
  t.equal(flood.dispatched.length, 3);
  flood.doors.open('release');
  await flood.answers('HTTP/1.1 200', count);
  t.strictSame(
    flood.dispatched,
    Array.from({ length: count }, (_, n) => n),
  );
  const bodies = [...flood.received().matchAll(/\r\n\r\n(\d+)/g)].map(([, n]) => Number(n));
  t.strictSame(bodies, flood.dispatched, 'in their order');
  flood.socket.write(request(count));
  await flood.answers('HTTP/1.1 200', count + 1);
  t.equal(flood.service.inFlight, 0);
});

t.test('a body of one that waits is read when its turn has come', async (t) => {
  const doors = new Doors();
  const { port, ask } = await running(t, {
    config: { maxPipelined: 1 },
    app: {
      routes(router) {
        router.post('/', async (request, response) => {
          doors.open('first');
          await doors.wait('release');
          let bytes = 0;
          for await (const chunk of request) bytes += chunk.length;
          sendJson(response, 200, { bytes });
        });
      },
    },
  });
  const socket = connect(port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  const size = 1_000_000;
  const post = `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n${'x'.repeat(size)}`;
  let text = '';
  const both = new Promise<void>((resolve) =>
    socket.on('data', (data) => {
      text += data;
      if (text.split(`{"bytes":${size}}`).length === 3) resolve();
    }),
  );
  socket.write(post + post);
  await doors.wait('first');
  await ask('/');
  doors.open('release');
  await both;
});

t.test('while stopping the flood is not read either, and what was read is refused', async (t) => {
  const flood = await flooded(t);
  flood.socket.write(request(0));
  await flood.doors.wait('first');
  const stopped = flood.service.stop();
  collect();
  const before = process.memoryUsage().heapUsed;
  flood.socket.write(requests(1, FLOOD));
  await othersAnswered(t, flood, 503);
  const { total } = (await flood.service.status()).rejected;
  t.ok(total < MOST + READ_BYTES / request(1).length + 20, `${total} refused`);
  collect();
  const megabytes = (process.memoryUsage().heapUsed - before) / 1e6;
  t.ok(megabytes < 16, `${megabytes.toFixed(1)} MB more`);

  flood.doors.open('release');
  await once(flood.socket, 'end');
  const statuses = flood.received().match(/HTTP\/1\.1 \d+/g) ?? [];
  t.equal(statuses[0], 'HTTP/1.1 200');
  t.ok(
    statuses.slice(1).every((status) => status === 'HTTP/1.1 503'),
    'then nothing but refusals',
  );
  t.ok(statuses.length > MOST, `${statuses.length} answers`);
  t.equal(flood.received().match(/connection: close/gi)?.length, 1);
  t.match(flood.received().split('HTTP/1.1 ').at(-1), /connection: close/i, 'the last one says that it is');
  flood.socket.destroy();
  t.match(await stopped, { completed: 1, exit_code: 0 });
  t.strictSame(flood.dispatched, [0]);
});

t.test(
  'what was read and waits at the signal is refused, behind the answers to what was admitted',
  async (t) => {
    const flood = await flooded(t);
    const count = 200;
    flood.socket.write(requests(0, count));
    await flood.doors.wait('first');
    await othersAnswered(t, flood);
    const stopped = flood.service.stop();
    flood.doors.open('release');
    await once(flood.socket, 'end');
    const statuses = flood.received().match(/HTTP\/1\.1 \d+/g) ?? [];
    t.equal(statuses.filter((status) => status.endsWith('200')).length, MOST);
    t.equal(statuses.filter((status) => status.endsWith('503')).length, count - MOST, 'each has its answer');
    t.match(flood.received().split('HTTP/1.1 ').at(-1), /connection: close/i, 'the last one says that it is');
    flood.socket.destroy();
    t.match(await stopped, {
      in_flight_at_lock: MOST,
      completed: MOST,
      rejected: count - MOST,
      exit_code: 0,
    });
  },
);

t.test('a flood whose client has left does not hold the stop', async (t) => {
  const flood = await flooded(t);
  flood.socket.write(requests(0, FLOOD));
  await flood.doors.wait('first');
  await othersAnswered(t, flood);
  flood.socket.destroy();
  t.match(await flood.service.stop(), { in_flight_at_lock: MOST, aborted: MOST, cut: [], exit_code: 0 });
});

t.test('past MAX_IN_FLIGHT the refused count as well', async (t) => {
  const flood = await flooded(t, { maxInFlight: 1 });
  flood.socket.write(requests(0, FLOOD));
  await flood.doors.wait('first');
  for (let turn = 0; turn < 20; turn += 1) await (await flood.operator('/livez')).arrayBuffer();
  t.equal((await flood.service.status()).rejected.overloaded, MOST - 1);
});

t.test('with workers, none is lost to one connection', async (t) => {
  const pool = await WorkersService.running(t, { workers: 1, env: { HEARTBEAT_TIMEOUT: '2' } });
  const [pid] = await pool.pids(1);
  const socket = connect(pool.port, '127.0.0.1');
  socket.on('error', () => undefined);
  t.teardown(() => socket.destroy());
  socket.write('GET /hang HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(150_000));
  await pool.service.line('hanging');
  for (let turn = 0; turn < 50; turn += 1) t.equal((await pool.get('/')).status, 200);
  socket.destroy();
  t.strictSame(await pool.pids(1), [pid]);
  t.notMatch(pool.service.output, /Worker \d+ .*(killed|ended|replaced)/);
});
