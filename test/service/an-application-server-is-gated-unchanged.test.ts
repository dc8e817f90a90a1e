import { spawn } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { failSafe, type Service, stopping } from '../../src/index.ts';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess, type SpawnOptions, tempDir } from '../support/service-process.ts';

const REGISTER = join(ROOT, 'dist/register.js');
const OWN_ID = /^[0-9a-z]{6}-[0-9a-z]+$/;
const UPGRADE = { Connection: 'Upgrade', Upgrade: 'echo' };
const OWN_SERVER = join(ROOT, 'test/fixtures/own-server.mjs');

/** A server that knows nothing of us, started with the preload. */
function preloaded(t: Test, options: SpawnOptions = {}): Promise<ServiceProcess> {
  const nodeArgs = ['--import', REGISTER];
  return ServiceProcess.running(t, { program: OWN_SERVER, args: [], nodeArgs, ...options });
}

function get(port: number, path = '/'): Promise<Response> {
  return fetch(`http://127.0.0.1:${port}${path}`);
}

for (const [habit, said] of [
  ['none', 'STOPPED - All requests completed gracefully'],
  ['exits at once', "The application's process.exit(0) is held back until the stop is over"],
  ['closes and waits', 'closed, with the database open'],
  ['closes its database first', 'have run: SIGTERM handler closesDatabase'],
] as const) {
  t.test(`SIGTERM loses nothing of a server whose own handler: ${habit}`, async (t) => {
    const service = await preloaded(t, { env: { HABIT: habit } });
    const idle = (await RawClient.open(service.port)).get('/');
    t.equal((await idle.response()).body, 'hello');
    const held = (await RawClient.open(service.port)).get('/hold/a');
    await service.line('holding a');
    await service.stop('SIGTERM');
    assertRefused(t, await idle.get('/').response());
    assertRefused(t, await (await RawClient.open(service.port)).get('/').response());
    service.release('a');
    const { status, body, headers } = await held.response();
    t.strictSame({ status, body }, { status: 200, body: 'open' }, 'the database was not closed under it');
    t.equal(headers.connection, 'close');
    t.strictSame(await service.exited, { code: 0, signal: null });
    t.match(service.report(), {
      reason: 'SIGTERM',
      in_flight_at_lock: 1,
      completed: 1,
      cut: [],
      exit_code: 0,
    });
    t.match(service.output, said);
    t.notMatch(service.output, /FATAL|ERROR/);
  });
}

t.test('the deadline cuts by name, exit 1', async (t) => {
  const service = await preloaded(t, { env: { SHUTDOWN_TIMEOUT: '0.3' } });
  const held = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  service.signal('SIGTERM');
  await held.ended;
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(service.output, 'Cut in-flight request: GET /hold/a');
});

t.test('a client that connects the moment it listens gets the answer of the application', async (t) => {
  const service = ServiceProcess.spawn(t, {
    ...{ program: OWN_SERVER, args: [], nodeArgs: ['--import', REGISTER] },
  });
  const line = await service.line('own server');
  const clients = [1, 2, 3].map(async () => {
    const client = await RawClient.open(Number(line.split(' ').at(-1)));
    return client.get('/').response();
  });
  for (const { status, body } of await Promise.all(clients)) t.strictSame([status, body], [200, 'hello']);
  const early = service.lines.findIndex((text) => text.includes('own server'));
  const running = service.lines.findIndex((text) => text.includes('RUNNING'));
  t.ok(running === -1 || early < running, 'it listened before the service ran');
  await service.accepting();
});

t.test(
  'a SIGTERM in the turn of the loop in which it listens is obeyed, whatever handlers it has',
  async (t) => {
    const program = join(tempDir(t), 'server.mjs');
    const text = `import { createServer } from 'node:http';
    process.on('SIGTERM', () => console.log('its own handler'));
    createServer().listen(0, '127.0.0.1');
    process.kill(process.pid, 'SIGTERM');`;
    writeFileSync(program, text);
    const service = ServiceProcess.spawn(t, { program, args: [], nodeArgs: ['--import', REGISTER] });
    t.strictSame(await service.exited, { code: 0, signal: null });
    t.match(service.output, /Received signal 15[\s\S]*its own handler/);
  },
);

t.test('servers of one process are one service, and UNGATED_PORTS stay open', async (t) => {
  const reserved = createServer().listen(0, '127.0.0.1');
  await once(reserved, 'listening');
  const { port: open } = reserved.address() as AddressInfo;
  await new Promise((resolve) => reserved.close(resolve));
  const service = await preloaded(t, { env: { PORTS: `0,0,${open}`, UNGATED_PORTS: `9, ${open}` } });
  const ports = service.lines
    .filter((line) => line.startsWith('own server'))
    .map((line) => Number(line.split(' ')[2]));
  t.equal(ports.length, 3);
  const [first = 0, second = 0] = ports;
  const held = (await RawClient.open(second)).get('/hold/a');
  await service.line('holding a');
  t.equal((await service.statusWhen(({ in_flight }) => in_flight.count === 1)).state, 'running');
  await service.stop();
  for (const port of [first, second])
    assertRefused(t, await (await RawClient.open(port)).get('/').response());
  t.equal(await (await get(open)).text(), 'hello', 'the one that is not gated');
  service.release('a');
  t.equal((await held.response()).status, 200);
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test("the server's own listeners are the handlers, with their order, and once", async (t) => {
  const service = await preloaded(t);
  await t.test('request', async (t) => {
    for (let round = 0; round < 2; round += 1) await get(service.port, '/order');
    const times = () => service.lines.filter((line) => line === 'last: added later').length;
    await service.until(() => times() === 2 || undefined, 'both');
    const said = service.lines.filter((line) => /^(first|last)/.test(line));
    t.strictSame(said, [
      ...['first: prepended', 'first: once', 'last: added later'],
      ...['first: prepended', 'last: added later'],
    ]);
  });
  await t.test('Expect: 100-continue, where it does not listen for it', async (t) => {
    const client = await RawClient.open(service.port);
    client.request('POST', '/upload', { 'Content-Length': '3', Expect: '100-continue' });
    t.equal((await client.response()).status, 100);
    t.equal((await client.write('abc').response()).body, '3');
    const other = (await RawClient.open(service.port)).request('GET', '/', { Expect: 'more' });
    t.equal((await other.response()).status, 417);
  });
  await t.test('clientError', async (t) => {
    const client = (await RawClient.open(service.port)).write('no request\r\n\r\n');
    t.equal((await client.response()).status, 418);
    await service.line('clientError HPE_INVALID');
  });
  await t.test('connect: nobody takes it, so the connection ends', async (t) => {
    const client = (await RawClient.open(service.port)).request('CONNECT', 'a:1');
    t.equal(await client.rest(), '');
  });
  await t.test('upgrade, which is in flight until it ends', async (t) => {
    const client = (await RawClient.open(service.port)).upgrade('/chat');
    t.equal((await client.response()).status, 101);
    client.write('one');
    await client.received(3);
    t.equal(client.pending, 'one');
    await service.stop();
    assertRefused(t, await (await RawClient.open(service.port)).upgrade('/chat').response());
    const expecting = await RawClient.open(service.port);
    expecting.request('POST', '/upload', { 'Content-Length': '3', Expect: '100-continue' });
    t.equal((await expecting.response()).status, 503, 'and no 100 before it');
    t.equal((await (await RawClient.open(service.port)).request('CONNECT', 'a:1').response()).status, 503);
    client.write('bye');
    t.equal(await client.rest(), 'onebye');
    client.destroy();
    t.strictSame(await service.exited, { code: 0, signal: null });
    t.equal(
      service.lines.filter((line) => line.startsWith('upgrade')).length,
      1,
      'a refused one is not dispatched',
    );
  });
});

t.test('an application that closes its server ends, and cuts nothing', async (t) => {
  const service = await preloaded(t);
  const held = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  t.equal(await (await get(service.port, '/close')).text(), 'closing');
  await service.line('Asked to stop by server.close()');
  assertRefused(t, await (await RawClient.open(service.port)).get('/').response());
  t.notMatch(service.output, 'closed by a request');
  service.release('a');
  t.equal((await held.response()).status, 200);
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(service.output, 'closed by a request');
});

t.test("each answer carries the request's id, and the access log tells of each by it", async (t) => {
  const env = { ACCESS_LOG: 'on', TRUSTED_PROXIES: '127.0.0.1', LOG_FORMAT: 'json' };
  const service = await preloaded(t, { env });
  const drain = await holdDrain(service);
  const asked = new Map<string, number>();
  const ask = async (client: RawClient, path: string, fields = {}): Promise<string> => {
    const { status, headers } = await client.request('GET', path, fields).response();
    const { 'x-request-id': id = '' } = headers;
    asked.set(id, status);
    return id;
  };
  const client = await RawClient.open(service.port);
  t.match(await ask(client, '/'), OWN_ID);
  t.match(await ask(client, '/missing'), OWN_ID, 'with a 404 of its own');
  const behind = { 'X-Request-Id': 'of-the-proxy', 'X-Forwarded-For': '192.0.2.7' };
  t.equal(await ask(client, '/', behind), 'of-the-proxy');
  t.match(await ask(await RawClient.open(service.port), '/', { Expect: 'more' }), OWN_ID);
  await service.stop();
  t.match(await ask(client, '/'), OWN_ID, 'with our 503');
  t.match(await ask(await RawClient.open(service.port), '/chat', UPGRADE), OWN_ID);
  t.strictSame([...asked.values()], [200, 404, 200, 417, 503, 503], 'no id was there twice');
  await drain.finish(t);
  const lines = service.lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  const told = lines.filter(({ method, path }) => method === 'GET' && path !== '/hold/drain');
  t.strictSame(new Map(told.map(({ request, status }) => [request, status])), asked);
  t.match(told[2], { client: '192.0.2.7', outcome: 'completed', duration_ms: Number });
  t.match(told[4], { client: '127.0.0.1', outcome: 'refused', reason: 'stopping' });
});

t.test("the application finds the request's id in its headers", async (t) => {
  const service = await preloaded(t);
  const { headers, body } = await (await RawClient.open(service.port))
    .request('GET', '/id', { 'X-Request-Id': 'of a client' })
    .response();
  t.match(headers['x-request-id'], OWN_ID);
  t.equal(body, headers['x-request-id']);
});

t.test('metrics count by the pattern that the framework tells, and never by the path', async (t) => {
  const service = await preloaded(t);
  for (const path of ['/orders/1', '/orders/2', '/a', '/b']) await get(service.port, path);
  const text = await (await service.operator('/metrics')).text();
  t.match(text, /requests_total\{[^}]*route="\/orders\/:id"[^}]*\} 2/);
  t.match(text, /requests_total\{[^}]*route="unmatched"[^}]*\} 2/);
  t.notMatch(text, /route="\/(a|b|orders\/1|health)"/);
});

t.test('metrics count by the pattern of Fastify', async (t) => {
  const program = join(tempDir(t), 'server.mjs');
  writeFileSync(
    program,
    `import Fastify from ${JSON.stringify(import.meta.resolve('fastify'))};
    const app = Fastify();
    app.get('/orders/:id', ({ params }, reply) => reply.send(params.id));
    app.get('/later/:id', async ({ params }) => params.id);
    await app.listen({ port: Number(process.env.PORT), host: '127.0.0.1' });`,
  );
  const service = await preloaded(t, { program });
  for (const path of ['/orders/1', '/orders/2', '/later/3', '/other'])
    await (await get(service.port, path)).text();
  const text = await (await service.operator('/metrics')).text();
  for (const [route, count] of Object.entries({ '/orders/:id': 2, '/later/:id': 1, unmatched: 1 }))
    t.match(text, new RegExp(`requests_total\\{[^}]*route="${route}"[^}]*\\} ${count}\n`));
});

t.test('the audit log has each request, also in strict mode', async (t) => {
  const service = await preloaded(t, { env: { AUDIT_MODE: 'strict' } });
  t.equal(await (await get(service.port, '/orders/7')).text(), '7');
  const log = readFileSync(join(service.stateDir, 'audit.ndjson'), 'utf8');
  t.match(log, /"type":"request"[^\n]*"path":"\/orders\/7","status":200[^\n]*"outcome":"completed"/);
  const drain = await holdDrain(service);
  await service.stop();
  service.release('drain');
  await drain.finish(t);
});

t.test('an emergency shutdown latches it, and the next start exits 75', async (t) => {
  const token = 'a-token-that-is-long-enough';
  const env = { ADMIN_TOKEN: token };
  const service = await preloaded(t, { env });
  const answer = await service.operator('/admin/emergency-shutdown', {
    ...{ method: 'POST', headers: { Authorization: `Bearer ${token}` } },
  });
  t.equal(answer.status, 200);
  t.strictSame(await service.exited, { code: 0, signal: null });
  const { stateDir } = service;
  const options = { program: OWN_SERVER, args: [], nodeArgs: ['--import', REGISTER], env, stateDir };
  const next = ServiceProcess.spawn(t, options);
  t.strictSame(await next.exited, { code: 75, signal: null });
  t.match(next.output, 'unlatch');
});

t.test(
  'bad configuration exits 78 with one line; names that are the application’s are not judged',
  async (t) => {
    const env = { SHUTDOWN_TIMEOUT: '10s', WORKERS: 'auto', HOST: '::1', REQUEST_TIMEOUT: '5m' };
    const options = { program: OWN_SERVER, args: [], nodeArgs: ['--import', REGISTER], env };
    const service = ServiceProcess.spawn(t, options);
    t.strictSame(await service.exited, { code: 78, signal: null });
    t.match(service.output, 'SHUTDOWN_TIMEOUT: want a number of seconds >= 0, at most 86400, got "10s"');
    t.notMatch(service.output, /WORKERS|HOST|REQUEST_TIMEOUT/);
  },
);

t.test('a process that never listens is left alone, silently', async (t) => {
  const cwd = tempDir(t);
  const run = async (code: string, signal?: NodeJS.Signals) => {
    const env = { ...process.env, NODE_OPTIONS: `--import=${REGISTER}`, STATE_DIR: '', LOG_FORMAT: 'text' };
    const child = spawn(process.execPath, ['-e', code], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    t.teardown(() => child.kill('SIGKILL'));
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text;
        if (signal !== undefined) child.kill(signal);
      });
    const [exitCode, by] = await once(child, 'close');
    return { exitCode, by, output };
  };
  const wait = "console.log('up'); setInterval(() => {}, 1000);";
  t.strictSame(await run("console.log('done'); process.exitCode = 3;"), {
    exitCode: 3,
    by: null,
    output: 'done\n',
  });
  t.strictSame(await run(wait, 'SIGTERM'), { exitCode: null, by: 'SIGTERM', output: 'up\n' });
  t.strictSame(await run(`process.once('SIGTERM', () => process.exit(9)); ${wait}`, 'SIGTERM'), {
    ...{ exitCode: 9, by: null, output: 'up\n' },
  });
  const crash = await run(
    "process.on('uncaughtException', (error) => console.log(error.message)); throw new Error('mine');",
  );
  t.strictSame(crash, { exitCode: 0, by: null, output: 'mine\n' });
  const worker =
    "new (require('worker_threads').Worker)(`require('http').createServer().listen(0, function () { console.log('up'); this.close(); })`, { eval: true });";
  t.strictSame(await run(worker), { exitCode: 0, by: null, output: 'up\n' }, 'a thread listens');
  t.strictSame(readdirSync(cwd), [], 'and nothing was written');
});

for (const way of ["worker.kill('SIGTERM')", 'cluster.disconnect()']) {
  t.test(
    `from NODE_OPTIONS, in CommonJS, with .env: a worker of node:cluster drains at ${way}`,
    async (t) => {
      const cwd = tempDir(t);
      writeFileSync(join(cwd, '.env'), 'RETRY_AFTER=17\n');
      writeFileSync(
        join(cwd, 'server.cjs'),
        `const cluster = require('cluster');
      if (cluster.isPrimary) {
        const worker = cluster.fork();
        worker.on('exit', (code) => process.exit(code + 40));
        process.on('SIGTERM', () => ${way});
      } else {
        require('http').createServer((request, response) => {
          process.stdout.write('holding\\n');
          setTimeout(() => response.end('whole'), 500);
        }).listen(0, '127.0.0.1');
      }`,
      );
      const env = { NODE_OPTIONS: `--import=${REGISTER}`, STATE_DIR: undefined, OPS_PORT: undefined };
      const program = join(cwd, 'server.cjs');
      const service = await ServiceProcess.running(t, { program, args: [], cwd, env });
      const idle = await RawClient.open(service.port);
      t.equal((await idle.get('/').response()).body, 'whole');
      const held = (await RawClient.open(service.port)).get('/');
      await service.until(
        () => service.lines.filter((line) => line === 'holding').length === 2 || undefined,
        'it',
      );
      await service.stop();
      const refused = await idle.get('/').response();
      t.strictSame([refused.status, refused.headers['retry-after']], [503, '17']);
      t.equal((await held.response()).body, 'whole');
      t.strictSame(await service.exited, { code: 40, signal: null }, 'the primary has its own way');
      t.ok(existsSync(join(cwd, 'var/worker-1/last-shutdown.json')));
    },
  );
}

t.test('failSafe()', async (t) => {
  const make = (t: Test): { server: Server; answer: Promise<() => void> } => {
    let held: (answer: () => void) => void;
    const answer = new Promise<() => void>((resolve) => {
      held = resolve;
    });
    const server = createServer((request, response) => {
      if (request.url === '/hold') held(() => response.end('whole'));
      else response.end('hello');
    });
    t.teardown(() => server.closeAllConnections());
    return { server, answer };
  };
  const options = (t: Test) => ({
    ...({ signals: false, stateDir: tempDir(t), opsPort: 'off', logLevel: 'silent' } as const),
  });
  const stops = async (t: Test, service: Service, server: Server, answer: Promise<() => void>) => {
    const { port } = server.address() as AddressInfo;
    t.equal(await (await get(port)).text(), 'hello');
    t.strictSame([service.state, service.acceptingRequests], ['running', true]);
    t.match(service.address, { port });
    const held = get(port, '/hold');
    const end = await answer;
    t.equal(service.inFlight, 1);
    const stopped = service.stop();
    let closed = false;
    server.close(() => {
      closed = true;
    });
    server.closeAllConnections();
    t.equal((await get(port)).status, 503);
    t.notOk(closed, 'an early close waits');
    end();
    t.equal(await (await held).text(), 'whole');
    t.match(await stopped, { completed: 1, cut: [], exit_code: 0 });
    t.ok(closed);
    t.equal(server.listening, false);
  };
  await t.test('before listen', async (t) => {
    const { server, answer } = make(t);
    const service = failSafe(server, options(t));
    t.equal(service.state, 'starting');
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    await stops(t, service, server, answer);
  });
  await t.test('after listen, and twice is once', async (t) => {
    const { server, answer } = make(t);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const service = failSafe(server, options(t));
    t.equal(failSafe(server, options(t)), service);
    await stops(t, service, server, answer);
    t.notOk(stopping.aborted, 'that is of the service which is the process');
  });
  await t.test('with responses of its own class, watched through diagnostics_channel', async (t) => {
    class Own<R extends IncomingMessage = IncomingMessage> extends ServerResponse<R> {
      readonly id = 'the own id of the class';
    }
    const server = createServer({ ServerResponse: Own }, (_request, response) => {
      response.end(response.id);
    });
    t.teardown(() => server.closeAllConnections());
    const messages: { event: string; id: string; response: unknown; status?: number; reason?: string }[] = [];
    for (const event of ['start', 'end', 'refused']) {
      const listener = (message: unknown): void => {
        messages.push({ ...(message as (typeof messages)[number]), event });
      };
      subscribe(`master-agent:request:${event}`, listener);
      t.teardown(() => unsubscribe(`master-agent:request:${event}`, listener));
    }
    server.listen(0, '127.0.0.1');
    const service = failSafe(server, options(t));
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const client = await RawClient.open(port);
    const { body, headers } = await client.get('/').response();
    t.equal(body, 'the own id of the class');
    const stopped = service.stop();
    const refused = await client.get('/').response();
    assertRefused(t, refused);
    await stopped;
    t.match(messages, [
      { event: 'start', id: headers['x-request-id'], response: Own },
      { event: 'end', id: headers['x-request-id'], response: Own, status: 200 },
      { event: 'refused', id: refused.headers['x-request-id'], response: Own, reason: 'stopping' },
    ]);
  });
  await t.test('with a mistake in the options', async (t) => {
    const { server } = make(t);
    t.throws(() => failSafe(server, { ...options(t), shutdownTimeoutMs: -1 }), /shutdownTimeoutMs/);
  });
});
