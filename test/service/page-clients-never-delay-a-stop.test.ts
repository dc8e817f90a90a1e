import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { pino } from 'pino';
import t from 'tap';
import { type StatusEvent, StatusStream } from '../../src/ops/status-stream.ts';
import { running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';
import { WorkersService } from '../support/workers-service.ts';

/** Opens a stream and comes back when its first event is there. */
async function watching(port: number): Promise<RawClient> {
  const client = (await RawClient.open(port)).get('/events');
  while (!client.pending.includes('\n\n\r\n')) await once(client.socket, 'data');
  return client;
}

function eventsOf(client: RawClient): { name: string; view: StatusEvent }[] {
  return [...client.pending.matchAll(/event: (\w+)\ndata: (.*)\n\n/g)].map(([, name = '', data = '']) => ({
    name,
    view: JSON.parse(data),
  }));
}

t.test('a page is told of a change at once, and at the end how it went; then it is let go', async (t) => {
  const { service, opsPort } = await running(t);
  const client = await watching(opsPort);
  const silent = await watching(opsPort);
  silent.socket.pause();
  const [first] = eventsOf(client);
  t.match(first, {
    name: 'status',
    view: { headline: 'RUNNING - 0 requests in flight', status: { state: 'running' } },
  });
  t.ok(Array.isArray(first?.view.history));
  const report = await service.stop('the test');
  await client.ended;
  const events = eventsOf(client);
  const last = events.at(-1);
  t.match(last, { name: 'bye', view: { headline: 'STOPPED - cleanly, nothing was in flight', report } });
  t.ok(
    events.some(({ view }) => view.status.state === 'stopping'),
    'the lock was told, however short it was',
  );
  t.equal(service.inFlight, 0);
  silent.destroy();
});

t.test('with workers too', async (t) => {
  const { service } = await WorkersService.running(t);
  const clients = await Promise.all([1, 2, 3].map(() => watching(service.opsPort)));
  clients[0]?.socket.pause();
  await service.stop();
  t.strictSame(await service.exited, { code: 0, signal: null });
  const { duration_seconds, exit_code } = service.report();
  t.equal(exit_code, 0);
  await clients[1]?.ended;
  t.match(eventsOf(clients[1] as RawClient).at(-1), {
    name: 'bye',
    view: { report: { duration_seconds, exit_code } },
  });
  clients[0]?.destroy();
});

t.test('so many pages and no more; who is turned away is told why', async (t) => {
  const { opsPort } = await running(t);
  const clients = await Promise.all(Array.from({ length: 32 }, () => watching(opsPort)));
  const late = (await RawClient.open(opsPort)).get('/events');
  const { status, body } = await late.response();
  t.equal(status, 503);
  t.match(body, '32 pages are open already');
  clients[0]?.destroy();
  for (;;) {
    const again = (await RawClient.open(opsPort)).request('HEAD', '/events');
    const answer = await again.response({ head: true });
    again.destroy();
    if (answer.status === 200) break;
  }
  for (const client of [...clients, late]) client.destroy();
});

t.test('a page that does not read is dropped, and what waits for it has an end', async (t) => {
  const { service } = await running(t);
  const pages = new StatusStream(
    () => ({ ...service.status(), version: 'x'.repeat(50_000) }),
    pino({ level: 'silent' }),
  );
  const server = createServer((request, response) => {
    response.on('close', () => dropped.push(response.writableLength));
    most = () => response.writableLength;
    pages.open(request, response);
  });
  const dropped: number[] = [];
  let most = (): number => 0;
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const stalled = connect((server.address() as AddressInfo).port, '127.0.0.1');
  stalled.on('error', () => undefined);
  stalled.pause();
  stalled.write('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
  await once(server, 'request');
  let highest = 0;
  while (dropped.length === 0) {
    pages.changed();
    await new Promise(setImmediate);
    highest = Math.max(highest, most());
  }
  t.ok(highest > 0 && highest < 200_000, `${highest} bytes waited at most`);
  stalled.destroy();
  await pages.close(undefined);
});

t.test('the history is there before anybody looks', async (t) => {
  const { opsPort, ask } = await running(t);
  t.equal((await ask('/health')).status, 200);
  for (;;) {
    const client = await watching(opsPort);
    const [first] = eventsOf(client);
    client.destroy();
    const { columns = [], history = [] } = first?.view ?? {};
    if (history.length < 2) continue;
    t.strictSame(columns, ['at', 'in_flight', '2xx', '4xx', '5xx', 'refused', 'unanswered']);
    t.ok(history.every((row) => row.length === columns.length));
    break;
  }
});
