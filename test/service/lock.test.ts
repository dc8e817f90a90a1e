import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { pino } from 'pino';
import t, { type Test } from 'tap';
import { createService, sendJson } from '../../src/index.ts';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

/** What is done before the signal. @returns what is asked for while the service is locked, by it and by no other */
type Probe = (service: ServiceProcess, t: Test) => Promise<(t: Test) => Promise<void>>;

const LARGE = 10 * 1024 * 1024;
const probes: Record<string, Probe> = {
  'a request on a new connection gets the 503 while the service stops': async (service) => {
    return async (t) => {
      for (const method of ['GET', 'POST', 'DELETE', 'OPTIONS']) {
        const client = (await RawClient.open(service.port)).request(method, '/');
        assertRefused(t, await client.response());
        t.equal(await client.ended, 'fin');
        t.equal(client.pending, '', 'one answer');
      }
      for (const path of ['/health', '/nowhere', '/%zz', '/hold/next']) {
        const client = (await RawClient.open(service.port)).get(path);
        assertRefused(t, await client.response());
        t.equal(await client.ended, 'fin');
      }
      t.notMatch(service.output, 'holding next', 'no handler was reached');
    };
  },
  'a request on an idle kept-alive connection gets the 503 while the service stops': async (service, t) => {
    const idle = await RawClient.open(service.port);
    t.equal((await idle.get('/').response()).status, 200);
    return async (t) => {
      assertRefused(t, await idle.get('/').response());
      t.equal(await idle.ended, 'fin');
    };
  },
  'of pipelined requests on an idle connection each gets the 503, and the last closes': async (
    service,
    t,
  ) => {
    const idle = await RawClient.open(service.port);
    t.equal((await idle.get('/').response()).status, 200);
    return async (t) => {
      idle.write('GET / HTTP/1.1\r\nHost: test\r\n\r\n'.repeat(5));
      for (const last of [false, false, false, false, true])
        assertRefused(t, await idle.response(), { last });
      t.equal(await idle.ended, 'fin');
      t.equal(idle.pending, '');
    };
  },
  'a HEAD request gets the head of the 503, with the length of the body it does not get': async (service) => {
    return async (t) => {
      const client = (await RawClient.open(service.port)).request('HEAD', '/');
      assertRefused(t, await client.response({ head: true }), { head: true });
      t.equal(await client.ended, 'fin');
      t.equal(client.pending, '', 'no body');
    };
  },
  'a request without a Host gets the 503 while the service stops, not a 400': async (service, t) => {
    const before = (await RawClient.open(service.port)).write('GET / HTTP/1.1\r\n\r\n');
    t.equal((await before.response()).status, 400, 'while it runs, it is malformed');
    return async (t) => {
      const client = (await RawClient.open(service.port)).write('GET / HTTP/1.1\r\n\r\n');
      assertRefused(t, await client.response());
      t.equal(await client.ended, 'fin');
    };
  },
  'a request over HTTP/1.0 gets the 503 while the service stops': async (service, t) => {
    const kept = (await RawClient.open(service.port)).write(
      'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n',
    );
    t.match(await kept.response(), { status: 200, headers: { connection: 'keep-alive' } });
    return async (t) => {
      const fresh = await RawClient.open(service.port);
      for (const client of [fresh.write('GET / HTTP/1.0\r\n\r\n'), kept.write('GET / HTTP/1.0\r\n\r\n')]) {
        assertRefused(t, await client.response());
        t.equal(await client.ended, 'fin');
        t.equal(client.pending, '');
      }
      const persistent = await RawClient.open(service.port);
      persistent.write('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n');
      assertRefused(t, await persistent.response());
      t.equal(await persistent.ended, 'fin');
    };
  },
  'a request that expects 100-continue gets the 503 and no 100 while the service stops': async (
    service,
    t,
  ) => {
    const before = await RawClient.open(service.port);
    before.request('POST', '/upload', { Expect: '100-continue', 'Content-Length': '5' });
    t.equal((await before.response()).status, 100, 'while it runs, it continues');
    t.match(await before.write('hello').response(), { status: 200, body: '{"bytes":5}' });
    return async (t) => {
      const fresh = await RawClient.open(service.port);
      for (const client of [before, fresh]) {
        client.request('POST', '/upload', { Expect: '100-continue', 'Content-Length': '5' });
        assertRefused(t, await client.response());
        t.equal(await client.ended, 'fin');
        t.equal(client.pending, '');
      }
      const insistent = await RawClient.open(service.port);
      insistent.request('POST', '/upload', { Expect: '100-continue', 'Content-Length': '5' }).write('hello');
      assertRefused(t, await insistent.response());
      t.equal(await insistent.ended, 'fin');
    };
  },
  'a request that expects something else gets the 503 too, not a 417': async (service, t) => {
    const before = (await RawClient.open(service.port)).request('GET', '/', { Expect: 'a miracle' });
    t.equal((await before.response()).status, 417, 'while it runs, it cannot be met');
    return async (t) => {
      const client = (await RawClient.open(service.port)).request('GET', '/', { Expect: 'a miracle' });
      assertRefused(t, await client.response());
      t.equal(await client.ended, 'fin');
    };
  },
  'a client that ends its side after the request gets the 503': async (service) => {
    return async (t) => {
      const client = (await RawClient.open(service.port)).get('/');
      client.socket.end();
      assertRefused(t, await client.response());
    };
  },
  'a request whose head was half sent at the signal gets the 503 when it is completed': async (
    service,
    t,
  ) => {
    const fresh = (await RawClient.open(service.port)).write('GET / HT');
    const reused = await RawClient.open(service.port);
    t.equal((await reused.get('/').response()).status, 200);
    reused.write('GET / HTTP/1.1\r\nHost: te');
    return async (t) => {
      for (const [client, rest] of [
        [fresh, 'TP/1.1\r\nHost: test\r\n\r\n'],
        [reused, 'st\r\n\r\n'],
      ] as const) {
        assertRefused(t, await client.write(rest).response());
        t.equal(await client.ended, 'fin');
        t.equal(client.pending, '');
      }
    };
  },
  'the 503 to a large upload arrives whole, and the connection ends without a reset': async (service, t) => {
    const idle = await RawClient.open(service.port);
    t.equal((await idle.get('/').response()).status, 200);
    return async (t) => {
      const fresh = await RawClient.open(service.port);
      for (const client of [fresh, idle]) {
        client.request('POST', '/upload', { 'Content-Length': String(LARGE) });
        const written = new Promise((resolve) => client.socket.write(Buffer.alloc(LARGE), resolve));
        assertRefused(t, await client.response());
        t.equal(await client.ended, 'fin');
        await written;
        t.equal(client.pending, '');
      }
    };
  },
  'a chunked body is refused in the same way': async (service) => {
    return async (t) => {
      const small = await RawClient.open(service.port);
      small.request('POST', '/upload', { 'Transfer-Encoding': 'chunked' }).write('5\r\nhello\r\n0\r\n\r\n');
      assertRefused(t, await small.response());
      t.equal(await small.ended, 'fin');

      const large = await RawClient.open(service.port);
      large.request('POST', '/upload', { 'Transfer-Encoding': 'chunked' });
      large
        .write(`${LARGE.toString(16)}\r\n`)
        .write(Buffer.alloc(LARGE))
        .write('\r\n0\r\n\r\n');
      assertRefused(t, await large.response());
      t.equal(await large.ended, 'fin');

      const unending = await RawClient.open(service.port);
      unending.request('POST', '/upload', { 'Transfer-Encoding': 'chunked' }).write('5\r\nhello\r\n');
      assertRefused(t, await unending.response());
      t.equal(await unending.ended, 'fin', 'also when the end of the body never comes');
    };
  },
  'an Upgrade gets the 503 while the service stops, whether somebody takes it or not': async (service, t) => {
    const before = await RawClient.open(service.port);
    t.equal((await before.get('/').response()).status, 200);
    return async (t) => {
      for (const client of [
        before.upgrade('/socket/late'),
        (await RawClient.open(service.port)).upgrade('/socket/late'),
        (await RawClient.open(service.port)).upgrade('/'),
        (await RawClient.open(service.port)).upgrade('/nowhere'),
      ]) {
        assertRefused(t, await client.response());
        t.equal(await client.ended, 'fin');
        t.equal(client.pending, '');
      }
    };
  },
  'an Upgrade with a body gets the 503 while the service stops, and no reset': async (service) => {
    return async (t) => {
      for (const path of ['/socket/late', '/']) {
        const client = await RawClient.open(service.port);
        const body = Buffer.alloc(4 * 1024 * 1024);
        client.request('POST', path, {
          Connection: 'Upgrade',
          Upgrade: 'test',
          'Content-Length': `${body.length}`,
        });
        client.write(body);
        assertRefused(t, await client.response());
        t.equal(await client.ended, 'fin');
        client.destroy();
      }
    };
  },
  'a CONNECT gets the 503 while the service stops': async (service) => {
    return async (t) => {
      const client = await RawClient.open(service.port);
      client.write('CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n');
      assertRefused(t, await client.response());
      t.equal(await client.ended, 'fin');
      t.equal(client.pending, '');
    };
  },
  'a request pipelined behind one in flight gets the 503 after its answer': async (service) => {
    const client = (await RawClient.open(service.port)).get('/hold/one');
    await service.line('holding one');
    return async (t) => {
      const { rejected } = await service.statusWhen(() => true);
      client.get('/hold/b');
      await service.statusWhen(({ rejected: { total } }) => total === rejected.total + 1);
      service.release('one');

      const first = await client.response();
      t.equal(first.status, 200);
      t.strictSame(JSON.parse(first.body), { held: 'one' });
      t.not(first.headers.connection, 'close', 'the second would be lost');
      assertRefused(t, await client.response());
      t.equal(await client.ended, 'fin');
      t.notMatch(service.output, 'holding b');
    };
  },
  'of three requests pipelined behind one in flight each gets the 503, and the last closes': async (
    service,
  ) => {
    const client = (await RawClient.open(service.port)).get('/hold/three');
    await service.line('holding three');
    return async (t) => {
      const { rejected } = await service.statusWhen(() => true);
      // One by one, so that the service reads each on its own.
      for (let count = 1; count <= 3; count += 1) {
        client.get('/');
        await service.statusWhen(({ rejected: { total } }) => total === rejected.total + count);
      }
      service.release('three');

      const first = await client.response();
      t.equal(first.status, 200);
      t.not(first.headers.connection, 'close');
      for (const last of [false, false, true]) assertRefused(t, await client.response(), { last });
      t.equal(await client.ended, 'fin');
      t.equal(client.pending, '');
    };
  },
};

for (const [what, head] of Object.entries({
  'an Upgrade that somebody takes': 'GET /socket/late HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: test',
  'an Upgrade that nobody takes': 'GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: test',
  'a CONNECT': 'CONNECT example.org:443 HTTP/1.1',
})) {
  probes[`${what} behind a request in flight gets the 503 after its answer`] = async (service) => {
    const name = encodeURIComponent(what);
    const client = (await RawClient.open(service.port)).get(`/hold/${name}`);
    await service.line(`holding ${what}`);
    return async (t) => {
      client.write(`${head}\r\nHost: test\r\n\r\n`);
      // The service has read it when it has answered what came later.
      assertRefused(t, await (await RawClient.open(service.port)).get('/').response());
      service.release(what);

      const first = await client.response();
      t.equal(first.status, 200);
      t.not(first.headers.connection, 'close');
      assertRefused(t, await client.response());
      t.equal(await client.ended, 'fin');
    };
  };
}

t.test('while the service stops', async (t) => {
  // Far longer than all of it takes: nothing is to end by itself.
  const service = await ServiceProcess.running(t, {
    env: { SHUTDOWN_TIMEOUT: '110', KEEP_ALIVE_TIMEOUT: '110' },
  });
  const drain = await holdDrain(service);
  const ready: [string, (t: Test) => Promise<void>][] = [];
  for (const [name, probe] of Object.entries(probes)) ready.push([name, await probe(service, t)]);
  await service.stop();
  for (const [name, ask] of ready) await t.test(name, ask);
  await drain.finish(t);
});

t.test('Retry-After says what RETRY_AFTER is', async (t) => {
  const service = await ServiceProcess.running(t, { env: { RETRY_AFTER: '17' } });
  const drain = await holdDrain(service);
  await service.stop();

  const client = (await RawClient.open(service.port)).get('/');
  t.equal((await client.response()).headers['retry-after'], '17');

  await drain.finish(t);
});

t.test('also when it comes with the end of the drain, where answers are held', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  await service.stop();

  // While it stands still the kernel takes connections for it: it finds them in its queue with the end of the drain.
  service.child.kill('SIGSTOP');
  const clients = await Promise.all(Array.from({ length: 20 }, () => RawClient.open(service.port)));
  for (const client of clients) client.get('/').socket.end();
  const finished = drain.finish(t);
  service.child.kill('SIGCONT');
  for (const client of clients) assertRefused(t, await client.response());
  await finished;
});

t.test('a half-sent request delays nothing, and gets the 503 when the service leaves', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const fresh = (await RawClient.open(service.port)).write('GET / HT');
  const reused = await RawClient.open(service.port);
  t.equal((await reused.get('/').response()).status, 200);
  reused.write('POST / HTTP/1.1\r\nHost: test\r\nContent-');
  const silent = await RawClient.open(service.port);
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);
  // What was written before this connection's answer has been read by the service too.
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);

  service.signal('SIGTERM');
  for (const client of [fresh, reused]) {
    assertRefused(t, await client.response());
    t.equal(await client.ended, 'fin');
  }
  for (const client of [silent, idle]) {
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '', 'who has sent nothing is told nothing');
  }
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test('the end of a body that came after its answer is no half-sent request', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = await RawClient.open(service.port);
  client.request('POST', '/ignore/a', { 'Content-Length': '10' }).write('hello');
  await service.line('holding a');
  service.release('a');
  t.equal((await client.response()).status, 200);
  client.write('world');
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);

  service.signal('SIGTERM');
  t.equal(await client.ended, 'fin');
  t.equal(client.pending, '', 'an answer to nothing would be taken for the next one');
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test('one request is in flight and the next is read in the same turn as the signal', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const client = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');

  client.get('/hold/b');
  await service.stop();
  // Whether b was admitted is decided by which came first; either way both are answered, and the second closes.
  service.release('a');
  service.release('b');
  const first = await client.response();
  t.equal(first.status, 200);
  t.not(first.headers.connection, 'close');
  const second = await client.response();
  t.ok(second.status === 200 || second.status === 503);
  t.equal(second.headers.connection, 'close');
  t.equal(await client.ended, 'fin');

  await drain.finish(t);
});

t.test(
  'who has connected while the service stops, and is slow to ask, gets the 503 at the very end',
  async (t) => {
    // In one process, so that its timers tell which comes first, the request or the end.
    let last: ServerResponse | undefined;
    const service = createService({
      config: { host: '127.0.0.1', port: 0, opsPort: 'off', stateDir: tempDir(t) },
      log: pino({ level: 'silent' }),
      app: {
        routes(router) {
          router.get('/last', (_request, response) => {
            last = response;
            void service.stop();
          });
        },
      },
    });
    await service.start();
    const port = service.address?.port ?? 0;
    const before = await RawClient.open(port);
    const held = (await RawClient.open(port)).get('/last');
    const refused = await RawClient.open(port);
    while (service.state === 'running') await new Promise(setImmediate);
    const late = await RawClient.open(port);
    assertRefused(t, await refused.get('/').response());

    last?.on('close', () => setTimeout(() => late.get('/'), 60));
    sendJson(last as ServerResponse, 200, {});
    t.equal((await held.response()).status, 200);
    assertRefused(t, await late.response());
    t.equal(await late.ended, 'fin');
    t.match(await service.stopped, { completed: 1, rejected: 2, exit_code: 0 });
    t.equal(await before.ended, 'fin');
    for (const client of [before, held, refused, late]) client.destroy();
  },
);

const APP = join(ROOT, 'test/fixtures/app-slow-stop.mjs');

t.test("a request on an idle connection gets the 503 while the application's stop() runs", async (t) => {
  const service = await ServiceProcess.running(t, { args: [APP] });
  const idle = await RawClient.open(service.port);
  const silent = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);
  await service.stop();
  await service.line('stopping the application');

  assertRefused(t, await idle.get('/').response());
  service.child.send({ release: 'stop' });
  t.equal(await silent.ended, 'fin', 'what is open ends after it');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.ok(
    service.lines.some((line) => line.includes('Refused 1 request: stopping')),
    'told before the end',
  );
});

t.test('the classic stop ends open connections before the stop(): they would let in more', async (t) => {
  const service = await ServiceProcess.running(t, { args: [APP], env: { ENABLE_FAIL_SAFE: 'false' } });
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);
  await service.stop();

  t.equal(await idle.ended, 'fin');
  service.child.send({ release: 'stop' });
  t.strictSame(await service.exited, { code: 0, signal: null });
});
