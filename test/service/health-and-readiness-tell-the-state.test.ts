import { hostname } from 'node:os';
import t from 'tap';
import { type App, sendJson } from '../../src/index.ts';
import { version } from '../../src/version.ts';
import { Doors, embedded, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';

function holdingApp(doors: Doors): App {
  return {
    routes(router) {
      router.get('/hold/:name', async (_request, response, { params }) => {
        doors.open(`held ${params.name}`);
        await doors.wait(`release ${params.name}`);
        sendJson(response, 200, {});
      });
      router.post('/upload', async (request, response) => {
        doors.open('uploading');
        for await (const _ of request);
        sendJson(response, 200, {});
      });
    },
  };
}

t.test('/health has exactly these fields', async (t) => {
  const { ask } = await running(t);
  const answer = await ask('/health');
  t.equal(answer.status, 200);
  const { uptime_seconds, ...rest } = (await answer.json()) as Record<string, unknown>;
  t.strictSame(rest, {
    status: 'healthy',
    service_state: 'running',
    accepting_requests: true,
    // The request that asks is one of them.
    in_flight: 1,
    version,
  });
  t.type(uptime_seconds, 'number');
  t.ok((uptime_seconds as number) > 0);
});

t.test('/livez is 200 in every state, /readyz only when requests should be sent', async (t) => {
  const doors = new Doors();
  const probes = async (): Promise<unknown[]> => {
    const [live, ready] = await Promise.all([operator('/livez'), operator('/readyz')]);
    return [live.status, await live.json(), ready.status, await ready.json()];
  };
  const starting: unknown[] = [];
  const made = embedded(t, {
    app: {
      ...holdingApp(doors),
      start: async () => starting.push(...(await probes())),
    },
  });
  const { service, operator } = made;
  const expected = (status: number, state: string): unknown[] => [
    200,
    { status: 'alive' },
    status,
    { status: status === 200 ? 'ready' : 'not ready', service_state: state },
  ];

  await service.start();
  t.strictSame(starting, expected(503, 'starting'));
  t.strictSame(await probes(), expected(200, 'running'));
  const held = (await RawClient.open(made.port)).get('/hold/a');
  await doors.wait('held a');
  const stopped = service.stop();
  t.strictSame(await probes(), expected(503, 'stopping'));
  doors.open('release a');
  t.equal((await held.response()).status, 200);
  await stopped;
});

t.test('in the lame duck health checks fail while requests are served', async (t) => {
  const { service, ask, operator } = await running(t, { config: { shutdownDelayMs: 60_000 } });
  const stopped = service.stop();
  t.equal(service.state, 'running');
  t.strictSame([(await ask('/health')).status, (await operator('/readyz')).status], [503, 503]);
  const { status, accepting_requests } = (await (await ask('/health')).json()) as Record<string, unknown>;
  t.strictSame([status, accepting_requests], ['shutting down', true]);
  t.equal((await ask('/nowhere')).status, 404, 'served, not refused');
  t.match(await (await operator('/status')).json(), { state: 'running', shutdown: { reason: 'stop()' } });
  await service.force('the end of the test');
  t.match(await stopped, { reason: 'stop()', exit_code: 0 });
});

t.test('/status tells state, counts and the last shutdown', async (t) => {
  const { operator, service, port } = await running(t);
  const idle = await RawClient.open(port);
  t.equal((await idle.get('/health').response()).status, 200);
  const answer = await operator('/status');
  t.equal(answer.status, 200);
  t.equal(answer.headers.get('cache-control'), 'no-store');
  const status = (await answer.json()) as Record<string, unknown>;
  const { since, uptime_seconds, event_loop, ...rest } = status;
  t.match(await service.status(), { ...rest, since }, 'the same as the program sees');
  t.strictSame(rest, {
    service: 'master-agent',
    version,
    host: hostname(),
    pid: process.pid,
    address: `http://127.0.0.1:${port}`,
    application: null,
    administration: 'closed',
    state: 'running',
    generation: 1,
    in_flight: { count: 0, oldest: [], holds: [] },
    connections: { open: 1, idle: 1 },
    answers: { '1xx': 0, '2xx': 1, '3xx': 0, '4xx': 0, '5xx': 0, none: 0 },
    rejected: { total: 0, starting: 0, stopping: 0, overloaded: 0 },
    shutdown: null,
    last_shutdown: null,
    last_reload: null,
    reload: null,
    workers: null,
    program: null,
    audit: null,
  });
  t.match(since, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  t.type(uptime_seconds, 'number');
  t.ok(event_loop === null || typeof event_loop === 'object', 'not known in the first seconds');
  idle.destroy();
});

t.test('/status names the oldest 20 in flight, the oldest first, and what they are doing', async (t) => {
  const doors = new Doors();
  const { operator, port } = await running(t, { app: holdingApp(doors) });
  const clients: RawClient[] = [];
  for (let index = 0; index < 23; index += 1) {
    const client = await RawClient.open(port);
    clients.push(client);
    if (index === 0) {
      client.request('POST', '/upload?secret=1', { 'Content-Length': '10' }).write('x');
      await doors.wait('uploading');
    } else {
      client.get(`/hold/${index}?token=hidden`);
      await doors.wait(`held ${index}`);
    }
  }
  const text = await (await operator('/status')).text();
  t.notMatch(text, 'hidden', 'never the query');
  const { in_flight, connections } = JSON.parse(text);
  t.equal(in_flight.count, 23);
  t.strictSame(connections, { open: 23, idle: 0 });
  t.strictSame(
    in_flight.oldest.map(({ path }: { path: string }) => path),
    ['/upload', ...Array.from({ length: 19 }, (_, index) => `/hold/${index + 1}`)],
  );
  const [upload, held] = in_flight.oldest;
  t.strictSame(Object.keys(upload), ['id', 'method', 'path', 'age_ms', 'phase']);
  t.match(upload, { method: 'POST', phase: 'receiving' });
  t.match(held, { method: 'GET', phase: 'working', age_ms: Number });
  t.equal(new Set(in_flight.oldest.map(({ id }: { id: string }) => id)).size, 20, 'ids are unique');
  for (const client of clients) client.destroy();
});

t.test('/status tells of a stop under way: why, until when, how long still', async (t) => {
  const doors = new Doors();
  const { service, operator, port } = await running(t, {
    app: holdingApp(doors),
    config: { shutdownTimeoutMs: 30_000 },
  });
  const client = (await RawClient.open(port)).get('/hold/a');
  await doors.wait('held a');
  const before = Date.now();
  const stopped = service.stop('the test');
  const status = (await (await operator('/status')).json()) as Record<string, never>;
  t.match(status, { state: 'stopping', in_flight: { count: 1 }, shutdown: { reason: 'the test' } });
  const { deadline, remaining_seconds } = status.shutdown as unknown as {
    deadline: string;
    remaining_seconds: number;
  };
  t.ok(remaining_seconds > 20 && remaining_seconds <= 30, `${remaining_seconds} s remain`);
  const offset = Date.parse(deadline) - before;
  t.ok(offset >= 29_900 && offset < 35_000, `the deadline is in ${offset} ms`);
  doors.open('release a');
  t.equal((await client.response()).status, 200);
  await stopped;
});

t.test('the ops server stays open until the very end, and then closes', async (t) => {
  const doors = new Doors();
  const { service, operator, opsPort } = await running(t, {
    app: {
      // The last thing before STOPPED: the service's door is closed by now.
      stop: async () => {
        doors.open('stopping');
        await doors.wait('let go');
      },
    },
  });
  const watching = await RawClient.open(opsPort);
  const stopped = service.stop();
  await doors.wait('stopping');
  t.equal(service.address, null);
  t.match(await (await operator('/status')).json(), { state: 'stopping', in_flight: { count: 0 } });
  t.equal((await operator('/livez')).status, 200);
  t.equal((await watching.get('/livez').response()).status, 200);
  doors.open('let go');
  await stopped;
  await watching.ended;
  await t.rejects(operator('/livez'), 'nobody answers any more');
});

t.test("the ops server answers nothing else, and no one else's", async (t) => {
  const { operator, ask } = await running(t, {
    app: { routes: (router) => router.get('/own', (_request, response) => response.end('x')) },
  });
  const missing = await operator('/own');
  t.equal(missing.status, 404);
  t.strictSame(await missing.json(), { error: 'Not Found', message: 'Nothing answers at this path.' });
  for (const path of ['/livez', '/readyz', '/status', '/metrics']) {
    const wrong = await operator(path, { method: 'POST' });
    t.equal(wrong.status, 405, path);
    t.equal(wrong.headers.get('allow'), 'GET, HEAD, OPTIONS');
    t.equal((await ask(path)).status, 404, `${path} is not on the service's door`);
    const head = await operator(path, { method: 'HEAD' });
    t.strictSame([head.status, await head.text()], [200, '']);
  }
  const admin = await operator('/admin/emergency-shutdown');
  t.equal(admin.status, 405);
  t.equal(admin.headers.get('allow'), 'OPTIONS, POST');
});

t.test('who watches is not in flight and holds nothing up', async (t) => {
  const { service, opsPort } = await running(t);
  // A request whose body never comes.
  const stuck = await RawClient.open(opsPort);
  stuck.request('POST', '/status', { 'Content-Length': '100' });
  t.equal((await stuck.response()).status, 405);
  t.equal(service.inFlight, 0);
  t.match(await service.stop(), { in_flight_at_lock: 0, exit_code: 0 });
});
