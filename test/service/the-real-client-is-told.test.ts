import { join } from 'node:path';
import t from 'tap';
import { sendJson } from '../../src/index.ts';
import { readRecords } from '../support/audit.ts';
import { type Embedded, running } from '../support/embedded-service.ts';

const TOKEN = 'correct-horse-battery';

function start(t: Parameters<typeof running>[0], trustedProxies?: string): Promise<Embedded> {
  return running(t, {
    config: { auditLog: undefined, adminToken: TOKEN, trustedProxies, accessLog: 'on' },
    app: {
      routes(router) {
        router.get('/who', (_request, response, { client }) => sendJson(response, 200, { client }));
      },
    },
  });
}

function wrongToken(made: Embedded, door: 'ask' | 'operator', client: string): Promise<Response> {
  const headers = {
    Authorization: 'Bearer wrong-horse-battery!',
    'X-Forwarded-For': `203.0.113.9, ${client}`,
  };
  return made[door]('/admin/emergency-shutdown', { method: 'POST', headers });
}

t.test('behind a trusted proxy handlers, log, audit log and token limit all see the client', async (t) => {
  const made = await start(t, '127.0.0.0/8');
  const headers = { 'X-Forwarded-For': '203.0.113.9, 198.51.100.7' };
  t.strictSame(await (await made.ask('/who', { headers })).json(), { client: '198.51.100.7' });
  t.match(await made.line('GET /who 200'), { client: '198.51.100.7' });
  for (const door of ['ask', 'operator'] as const) {
    for (let n = 0; n < 5; n += 1) t.equal((await wrongToken(made, door, '198.51.100.66')).status, 403);
    t.equal((await wrongToken(made, door, '198.51.100.66')).status, 429, 'this one has to wait');
    t.equal((await wrongToken(made, door, '198.51.100.7')).status, 403, 'and no other behind the same proxy');
  }
  t.match(await made.line("Administrator's route used from 198.51.100.66: wrong token"), { level: 'warn' });
  await made.service.stop();
  const file = join(made.stateDir, 'audit.ndjson');
  t.equal(readRecords(file, 'request')[0]?.client, '198.51.100.7');
  t.equal(readRecords(file, 'admin')[0]?.client, '198.51.100.66');
});

t.test('of anybody else what they write about themselves is not read', async (t) => {
  for (const trusted of [undefined, '10.0.0.0/8']) {
    const made = await start(t, trusted);
    const headers = { 'X-Forwarded-For': '198.51.100.7', Forwarded: 'for=198.51.100.7' };
    t.strictSame(await (await made.ask('/who', { headers })).json(), { client: '127.0.0.1' });
    for (let n = 0; n < 5; n += 1) await wrongToken(made, 'ask', `198.51.100.${n}`);
    t.equal((await wrongToken(made, 'ask', '198.51.100.66')).status, 429, 'a new name is no new address');
  }
});
