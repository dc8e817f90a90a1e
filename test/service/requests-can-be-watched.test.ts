import { AsyncLocalStorage } from 'node:async_hooks';
import { channel } from 'node:diagnostics_channel';
import t, { type Test } from 'tap';
import { type Config, completeConfig } from '../../src/config/settings.ts';
import { sendJson } from '../../src/index.ts';
import { Doors, type Embedded, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';

const OWN = /^[0-9a-z]{6}-[0-9a-z]+$/;
const span = new AsyncLocalStorage<string>();

function start(t: Test, doors: Doors, config: Partial<Config>): Promise<Embedded> {
  return running(t, {
    config,
    app: {
      routes(router) {
        router.get('/span', async (_request, response) => {
          await new Promise(setImmediate);
          sendJson(response, 200, { span: span.getStore() });
        });
        router.get('/hold', async (_request, response) => {
          doors.open('held');
          await doors.wait('release');
          response.end();
        });
        router.mount('/legacy', (_request, response) => sendJson(response, 202, {}));
        router.upgrade('/chat', (_request, socket) => {
          socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n');
        });
      },
    },
  });
}

interface Message {
  readonly event: string;
  readonly id: string;
  readonly client: string;
  readonly request: { readonly url?: string };
  readonly response: unknown;
  readonly [field: string]: unknown;
}

t.test('diagnostics_channel has the begin, the end and the refusal of each request', async (t) => {
  const doors = new Doors();
  const made = await start(t, doors, {});
  t.equal((await made.ask('/span')).status, 200, 'before anybody listens');
  const messages: Message[] = [];
  for (const event of ['start', 'end', 'refused']) {
    const listener = (message: unknown): void => {
      messages.push({ ...(message as Message), event });
    };
    channel(`master-agent:request:${event}`).subscribe(listener);
    t.teardown(() => channel(`master-agent:request:${event}`).unsubscribe(listener));
  }
  const starts = channel('master-agent:request:start');
  (starts as typeof starts & { bindStore(store: unknown, of: (message: unknown) => string): void }).bindStore(
    span,
    (message) => `span of ${(message as Message).id}`,
  );

  const answer = await made.ask('/span');
  const id = answer.headers.get('x-request-id');
  t.strictSame(await answer.json(), { span: `span of ${id}` }, 'a bound store is the store of the handler');
  const chat = (await RawClient.open(made.port)).upgrade('/chat');
  t.equal((await chat.response()).status, 101);
  await chat.ended;
  chat.destroy();
  const busy = (await RawClient.open(made.port)).get('/hold');
  await doors.wait('held');
  const late = await RawClient.open(made.port);
  const stopped = made.service.stop();
  const refused = await late.get('/span').response();
  doors.open('release');
  await busy.response();
  await stopped;

  t.match(
    messages.filter(({ request }) => request.url === '/span'),
    [
      { event: 'start', id, client: '127.0.0.1', response: Object },
      { event: 'end', id, status: 200, outcome: 'completed', durationMs: Number },
      { event: 'refused', id: refused.headers['x-request-id'], reason: 'stopping', client: '127.0.0.1' },
    ],
  );
  const [begun, ended] = messages;
  t.equal(begun?.request, ended?.request, 'a span can be kept by its request');
  t.match(
    messages.filter(({ request }) => request.url === '/chat'),
    [
      { event: 'start', id: OWN, response: undefined },
      { event: 'end', status: 101, outcome: 'completed' },
    ],
  );
});

t.test(
  'ACCESS_LOG=on: a line for each request at its end, and for what is refused or malformed',
  async (t) => {
    const doors = new Doors();
    const made = await start(t, doors, { accessLog: 'on' });
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const answer = await made.ask('/legacy/deep?card=4111', { headers: { traceparent } });
    t.match(await made.line('GET /legacy/deep 202'), {
      ...{ level: 'info', msg: 'GET /legacy/deep 202', request: answer.headers.get('x-request-id') },
      ...{ client: '127.0.0.1', method: 'GET', path: '/legacy/deep', status: 202, outcome: 'completed' },
      ...{ trace: '4bf92f3577b34da6a3ce929d0e0e4736', duration_ms: Number },
    });
    const malformed = await (await RawClient.open(made.port)).write('nonsense\r\n\r\n').response();
    t.match(await made.line('Malformed request: 400'), { request: malformed.headers['x-request-id'] });
    const gone = (await RawClient.open(made.port)).get('/hold');
    await doors.wait('held');
    gone.destroy();
    t.match(await made.line('GET /hold unanswered'), { outcome: 'aborted' });
    const busy = (await RawClient.open(made.port)).get('/hold?again');
    while (made.service.inFlight < 1) await new Promise(setImmediate);
    const late = await RawClient.open(made.port);
    const stopped = made.service.stop();
    const refused = await late.get('/span?x').response();
    t.match(await made.line('GET /span 503'), {
      ...{ request: refused.headers['x-request-id'], path: '/span', outcome: 'refused', reason: 'stopping' },
    });
    doors.open('release');
    await busy.response();
    await stopped;
    t.notMatch(JSON.stringify(made.lines), /4111|traceparent/);
  },
);

t.test('without it there is none, and a reload turns it on and off', async (t) => {
  const made = await start(t, new Doors(), {});
  const accesses = (): unknown[] => made.lines.filter(({ msg }) => msg.startsWith('GET '));
  const given = { host: '127.0.0.1', port: 0, opsPort: 0, stateDir: made.stateDir, auditLog: 'off' };
  await made.ask('/span');
  await made.service.reload(completeConfig({ ...given, accessLog: 'on' }));
  t.strictSame(accesses(), []);
  await made.ask('/span');
  await made.line('GET /span 200');
  await made.service.reload(completeConfig(given));
  await made.ask('/span');
  await made.service.stop();
  t.equal(accesses().length, 1);
});
