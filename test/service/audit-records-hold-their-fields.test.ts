import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { sendJson } from '../../src/index.ts';
import { type AuditRecord, readRecords, verifyBytes } from '../support/audit.ts';
import { Doors, type Embedded, type EmbeddedOptions, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { tempDir } from '../support/service-process.ts';

const TOKEN = 'the-token-of-the-administrator';
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const ID = /^[0-9a-z]{6}-[0-9a-z]+$/;

/** Stops the service and reads its log. */
async function records({ service, stateDir }: Embedded, type?: string): Promise<AuditRecord[]> {
  await service.stop();
  return readRecords(join(stateDir, 'audit.ndjson'), type);
}

function start(t: Test, options: EmbeddedOptions = {}): Promise<Embedded> {
  return running(t, { ...options, config: { auditLog: undefined, adminToken: TOKEN, ...options.config } });
}

t.test(
  'the time of a record is when its request ended, to the millisecond, from one second to the next',
  async (t) => {
    const made = await start(t);
    const ended: { after: number; before: number }[] = [];
    const firstSecond = Math.floor(Date.now() / 1000);
    while (Math.floor(Date.now() / 1000) < firstSecond + 2) {
      const after = Date.now();
      await (await made.ask('/')).text();
      while (made.service.inFlight > 0) await new Promise(setImmediate);
      ended.push({ after, before: Date.now() });
    }
    const all = await records(made, 'request');
    t.equal(all.length, ended.length);
    const wrong = all.filter(({ time }, index) => {
      const at = Date.parse(String(time));
      const { after = 0, before = 0 } = ended[index] ?? {};
      // A time is written anew when a millisecond is over, on a clock that does not jump.
      return !TIME.test(String(time)) || at < after - 1 || at > before;
    });
    t.strictSame(wrong, []);
  },
);

t.test('a run from its start to its end', async (t) => {
  const made = await start(t);
  const all = await records(made);
  t.strictSame(
    all.map(({ type, state }) => [type, state].filter(Boolean).join(' ')),
    ['open', 'state starting', 'state running', 'state stopping', 'state stopped'],
  );
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  t.match(all[0], { reason: 'start', previous: '0'.repeat(64), version, pid: process.pid });
  t.strictSame(Object.keys(all[0] ?? {}), ['type', 'time', 'reason', 'previous', 'version', 'pid']);
  t.strictSame(Object.keys(all[1] ?? {}), ['type', 'time', 'state']);
  for (const { time } of all) t.match(time, TIME);
});

t.test('every admitted request: who, what and how it ended, without the values of its query', async (t) => {
  const doors = new Doors();
  const made = await start(t, {
    app: {
      routes(router) {
        router.get('/orders/:id', (_request, response) => sendJson(response, 200, {}));
        router.get('/wait', async (_request, response) => {
          response.write('first');
          await doors.wait('go');
          response.end();
        });
      },
    },
  });
  await (
    await made.ask('/orders/7?card=4111111111111111', { headers: { 'X-Private': 'header-value' } })
  ).text();
  await (await made.ask('/nowhere', { method: 'POST', body: 'body-value' })).text();
  const gone = (await RawClient.open(made.port)).get('/wait');
  await gone.received(1);
  gone.destroy();
  while (made.service.inFlight > 0) await new Promise(setImmediate);
  doors.open('go');

  const all = await records(made, 'request');
  t.match(all, [
    { method: 'GET', path: '/orders/7', status: 200, outcome: 'completed' },
    { method: 'POST', path: '/nowhere', status: 404, outcome: 'completed' },
    { method: 'GET', path: '/wait', status: 200, outcome: 'aborted' },
  ]);
  for (const record of all) {
    t.strictSame(Object.keys(record), [
      ...['type', 'time', 'id', 'client', 'method', 'path', 'status', 'duration_ms', 'outcome'],
    ]);
    t.match(record, { time: TIME, id: ID, client: '127.0.0.1' });
    t.ok(Number(record.duration_ms) >= 0);
  }
  const text = readFileSync(join(made.stateDir, 'audit.ndjson'), 'utf8');
  for (const secret of ['4111111111111111', 'header-value', 'body-value'])
    t.notOk(text.includes(secret), secret);
});

t.test('what a stop has cut, and a summary of what it has refused', async (t) => {
  const made = await start(t, {
    app: { routes: (router) => router.get('/hang', () => undefined) },
    config: { shutdownTimeoutMs: 200 },
  });
  (await RawClient.open(made.port)).get('/hang');
  const idle = await RawClient.open(made.port);
  while (made.service.inFlight === 0) await new Promise(setImmediate);
  const stopped = made.service.stop();
  t.equal((await idle.get('/hang').response()).status, 503);
  await stopped;
  const file = join(made.stateDir, 'audit.ndjson');
  t.match(readRecords(file, 'request'), [{ path: '/hang', status: 0, outcome: 'cut' }]);
  const [refused, ...more] = readRecords(file, 'refused');
  t.strictSame(Object.keys(refused ?? {}), ['type', 'time', 'count']);
  t.equal(refused?.count, 1);
  t.strictSame(more, []);
});

t.test("an administrator's attempt, and an emergency with its reason", async (t) => {
  const made = await start(t);
  const reason = 'quotes " and \\, a\nline, \u2028, half a \ud83d character';
  const answer = await made.ask('/admin/emergency-shutdown', {
    method: 'POST',
    headers: { Authorization: `Bearer ${TOKEN}` },
    body: JSON.stringify({ reason }),
  });
  t.equal(answer.status, 200);
  await made.service.stopped;
  const file = join(made.stateDir, 'audit.ndjson');
  const [attempt] = readRecords(file, 'admin');
  const { time, ...rest } = attempt ?? {};
  t.match(time, TIME);
  t.match(answer.headers.get('x-request-id'), ID);
  t.strictSame(rest, {
    type: 'admin',
    action: 'emergency-shutdown',
    id: answer.headers.get('x-request-id'),
    client: '127.0.0.1',
    result: 'accepted',
  });
  const [emergency] = readRecords(file, 'emergency');
  t.match(emergency, { by: '127.0.0.1', reason, latched: true });
});

t.test('bytes from clients neither end a line nor begin one', async (t) => {
  const made = await start(t);
  const paths = [
    '/"},{"type":"seal","chain":"x"}',
    '/\\u000a{"type":"seal",',
    '/%0a%0d%00%22',
    `/${'long'.repeat(2_000)}`,
    "/'<script>&`$(reboot)",
    '//?',
    '*',
  ];
  const client = await RawClient.open(made.port);
  for (const path of paths) {
    client.write(Buffer.from(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`, 'latin1'));
    t.equal((await client.response()).headers.connection, 'keep-alive', path.slice(0, 40));
  }
  const strange = await RawClient.open(made.port);
  strange.request('M-SEARCH', '/"');
  t.equal((await strange.response()).status, 404);
  // These the parser refuses: they are never admitted, and not on record.
  for (const bad of ['GET /a\x01b', 'GET /a\x7fb', 'GET /a\xe9\xff', 'GET /a\rb', 'G"T /', 'G\xe9T /']) {
    const malformed = await RawClient.open(made.port);
    malformed.write(Buffer.from(`${bad} HTTP/1.1\r\nHost: test\r\n\r\n`, 'latin1'));
    t.equal((await malformed.response()).status, 400, JSON.stringify(bad));
  }

  const all = await records(made, 'request');
  const seen = all.map(({ path }) => path);
  const want = paths.map((path) => (path.length > 200 ? `${path.slice(0, 200)}…` : path.split('?')[0]));
  t.strictSame(seen, [...want, '/"'], 'each path as it came, a long one cut');
  t.equal(all.at(-1)?.method, 'M-SEARCH');
  const bytes = readFileSync(join(made.stateDir, 'audit.ndjson'));
  t.equal(verifyBytes(tempDir(t), bytes).finding, undefined);
  t.ok(Buffer.from(bytes.toString('utf8')).equals(bytes), 'the log is UTF-8');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what must not be there
  t.notMatch(bytes.toString('utf8'), /[\x00-\x09\x0b-\x1f\x7f]/);
});
