import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type App, sendJson } from '../../src/index.ts';
import { type Attempt, Credential } from '../../src/ops/admin.ts';
import { Doors, type Embedded, embedded, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';
import { tempDir } from '../support/service-process.ts';

const TOKEN = 'correct-horse-battery';
const WRONG = 'wrong-horse-battery!';
const PATH = '/admin/emergency-shutdown';

type GatedServer = 'ask' | 'operator';
const DOORS: readonly GatedServer[] = ['ask', 'operator'];

function post(
  service: Embedded,
  door: GatedServer,
  token?: string,
  init: RequestInit = {},
): Promise<Response> {
  const authorization: Record<string, string> =
    token === undefined ? {} : { authorization: `Bearer ${token}` };
  return service[door](PATH, { method: 'POST', ...init, headers: { ...authorization, ...init.headers } });
}

function holdingApp(doors: Doors): App {
  return {
    routes(router) {
      router.get('/hold', async (_request, response) => {
        doors.open('held');
        await doors.wait('release');
        sendJson(response, 200, {});
      });
    },
  };
}

for (const door of DOORS) {
  t.test(
    `on the ${door === 'ask' ? "service's" : "operator's"} door the right token stops the service, and what is in flight completes`,
    async (t) => {
      const doors = new Doors();
      const service = await running(t, { app: holdingApp(doors), config: { adminToken: TOKEN } });
      const busy = (await RawClient.open(service.port)).get('/hold');
      await doors.wait('held');

      const answer = await post(service, door, TOKEN, {
        body: JSON.stringify({ reason: 'leaking "secrets"\nline two' }),
        headers: { 'content-type': 'application/json' },
      });
      t.equal(answer.status, 200);
      t.strictSame(await answer.json(), { status: 'shutdown_initiated' });
      t.equal(service.service.state, 'stopping');
      doors.open('release');
      t.equal((await busy.response()).status, 200);
      t.match(await service.service.stopped, { reason: 'emergency', exit_code: 0, cut: [], aborted: 0 });
      t.match(
        service.lines.find(({ msg }) => msg.startsWith('Emergency shutdown by ')),
        {
          level: 'warn',
          msg: 'Emergency shutdown by 127.0.0.1: "leaking \\"secrets\\"\\nline two"',
          emergency: 'leaking "secrets"\nline two',
          by: '127.0.0.1',
        },
        'the reason is kept, on one line',
      );
      t.ok(
        service.lines.some(({ msg }) => msg.startsWith('Emergency shutdown. Initiating graceful shutdown')),
      );
      secretIsNowhere(t, service);
    },
  );

  t.test(`on the ${door === 'ask' ? "service's" : "operator's"} door nothing else does`, async (t) => {
    const service = await running(t, { config: { adminToken: TOKEN } });
    const without = await post(service, door);
    t.equal(without.status, 401);
    t.equal(without.headers.get('www-authenticate'), 'Bearer');
    t.strictSame(await without.json(), {
      error: 'Unauthorized',
      message: "This route needs Authorization: Bearer with the administrator's token.",
    });
    for (const authorization of [`Basic ${TOKEN}`, TOKEN, 'Bearer', 'Bearer ', `Bearer  ${TOKEN}`]) {
      const answer = await service[door](PATH, { method: 'POST', headers: { authorization } });
      t.equal(answer.status, 401, authorization);
    }
    const wrong = await post(service, door, WRONG);
    t.equal(wrong.status, 403);
    t.strictSame(await wrong.json(), { error: 'Forbidden', message: 'The token is wrong.' });
    for (const near of [`${TOKEN}x`, TOKEN.slice(0, -1), TOKEN.toUpperCase()]) {
      t.equal((await post(service, door, near)).status, 403);
    }
    t.equal(service.service.state, 'running');
    t.strictSame(
      [...new Set(service.lines.filter(({ level }) => level === 'warn').map(({ msg }) => msg))],
      [
        "Administrator's route used from 127.0.0.1: no token",
        "Administrator's route used from 127.0.0.1: wrong token",
      ],
      'and every attempt is on record',
    );
    secretIsNowhere(t, service);
  });

  t.test(
    `on the ${door === 'ask' ? "service's" : "operator's"} door the sixth wrong token has to wait, and so has the right one then`,
    async (t) => {
      const service = await running(t, { config: { adminToken: TOKEN } });
      for (let attempt = 0; attempt < 5; attempt += 1) {
        t.equal((await post(service, door, WRONG)).status, 403);
      }
      // On the ops server the right one always gets in.
      const refused = door === 'ask' ? [WRONG, TOKEN, undefined] : [WRONG, undefined];
      for (const token of refused) {
        const answer = await post(service, door, token);
        t.equal(answer.status, 429);
        const wait = Number(answer.headers.get('retry-after'));
        t.ok(wait > 50 && wait <= 60, `${wait} s`);
        t.strictSame(await answer.json(), {
          error: 'Too Many Requests',
          message: 'Too many wrong tokens from this address.',
        });
      }
      t.equal(service.service.state, 'running');
    },
  );

  t.test(
    `on the ${door === 'ask' ? "service's" : "operator's"} door the route is closed without a token, and says which setting opens it`,
    async (t) => {
      const service = await running(t);
      for (const token of [undefined, '', TOKEN]) {
        const answer = await post(service, door, token);
        t.equal(answer.status, 403);
        t.match(await answer.json(), { message: /ADMIN_TOKEN/ });
      }
      t.equal(service.service.state, 'running');
    },
  );
}

t.test('no body hinders an emergency', async (t) => {
  const bodies: [string, Record<string, string>][] = [
    ['{"reason":', { 'content-type': 'application/json' }],
    ['reason=fire', { 'content-type': 'application/x-www-form-urlencoded' }],
    ['null', {}],
    ['{"reason":{"not":"text"}}', {}],
    ['x'.repeat(100_000), { 'content-type': 'application/octet-stream' }],
  ];
  for (const [body, headers] of bodies) {
    const service = await running(t, { config: { adminToken: TOKEN } });
    const answer = await post(service, 'ask', TOKEN, { body, headers });
    t.equal(answer.status, 200, body.slice(0, 30));
    t.match(await service.service.stopped, { exit_code: 0 });
    t.ok(service.lines.some(({ msg }) => msg === 'Emergency shutdown by 127.0.0.1'));
  }
});

t.test('a reason is cut to 500 characters, and needs no Content-Type', async (t) => {
  const service = await running(t, { config: { adminToken: TOKEN } });
  await post(service, 'operator', TOKEN, { body: Buffer.from(JSON.stringify({ reason: 'é'.repeat(600) })) });
  await service.service.stopped;
  t.equal(service.lines.find(({ emergency }) => emergency !== undefined)?.emergency, 'é'.repeat(500));
});

t.test('an emergency does not wait for a body that never comes', async (t) => {
  const service = await running(t, { config: { adminToken: TOKEN } });
  const client = await RawClient.open(service.opsPort);
  client.request('POST', PATH, { Authorization: `Bearer ${TOKEN}`, 'Content-Length': '10' });
  t.equal((await client.response()).status, 200);
  t.match(await service.service.stopped, { reason: 'emergency', exit_code: 0 });
});

t.test('on the ops server it also works while the service stops already, and ends a lame duck', async (t) => {
  const doors = new Doors();
  const service = await running(t, {
    app: holdingApp(doors),
    config: { adminToken: TOKEN, shutdownDelayMs: 3_600_000 },
  });
  const busy = (await RawClient.open(service.port)).get('/hold');
  await doors.wait('held');
  const stopped = service.service.stop('SIGTERM');
  t.equal(service.service.state, 'running', 'a lame duck');
  t.equal((await post(service, 'operator', TOKEN)).status, 200);
  const refused = await RawClient.open(service.port);
  t.equal((await refused.get('/').response()).status, 503, 'locked at once');
  t.equal((await post(service, 'operator', TOKEN)).status, 200, 'and once more while stopping');
  t.equal((await post(service, 'ask', TOKEN)).status, 503, "the service's door is locked for it too");
  t.ok(service.service.inFlight === 1, 'it cuts nothing');
  doors.open('release');
  t.equal((await busy.response()).status, 200);
  t.match(await stopped, { reason: 'SIGTERM', exit_code: 0 });
});

t.test('the token can come from a file, without the line end an editor leaves', async (t) => {
  const adminTokenFile = join(tempDir(t), 'token');
  writeFileSync(adminTokenFile, `${TOKEN}\n`);
  const service = await running(t, { config: { adminTokenFile } });
  t.ok(service.lines.some(({ msg }) => msg === "Administrator's credential loaded"));
  t.equal((await post(service, 'ask', WRONG)).status, 403);
  t.equal((await post(service, 'ask', TOKEN)).status, 200);
  await service.service.stopped;
  secretIsNowhere(t, service);
});

t.test('a token file that is missing, empty or too short is bad configuration', async (t) => {
  const dir = tempDir(t);
  const file = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text);
    return join(dir, name);
  };
  const want = '16 or more printable characters without a space';
  for (const [adminTokenFile, message] of [
    [join(dir, 'none'), /^ADMIN_TOKEN_FILE: want a file that can be read, got ".*none": ENOENT/],
    [dir, /^ADMIN_TOKEN_FILE: want a file that can be read, got ".*": EISDIR/],
    [file('empty', '\n'), new RegExp(`^ADMIN_TOKEN_FILE: want ${want} in ".*empty", got 0 characters$`)],
    [file('short', 'fifteen-letters'), new RegExp(`want ${want} in ".*short", got 15 characters$`)],
    [file('two', `${TOKEN} ${TOKEN}`), /got 43 characters$/],
  ] as const) {
    const { service } = embedded(t, { config: { adminTokenFile } });
    await t.rejects(service.start(), { name: 'ConfigError', exitCode: 78, message });
    t.equal(service.opsAddress, null);
  }
});

t.test(
  'failures are counted for each address alone, and those of a forgotten one are forgotten',
  async (t) => {
    const credential = credentialOf(TOKEN);
    for (let attempt = 0; attempt < 5; attempt += 1) {
      t.equal(check(credential, '1.1.1.1', `Bearer ${WRONG}`), 'wrong token');
    }
    t.equal(check(credential, '1.1.1.1', `Bearer ${TOKEN}`), 'too many failures');
    t.equal(check(credential, '2.2.2.2', `bearer ${TOKEN}`), 'accepted', 'and the scheme has no case');
    t.equal(credential.retryAfter({ port: 'service', address: '2.2.2.2' }), 0);
    for (let address = 0; address < 10_000; address += 1)
      check(credential, `::${address}`, `Bearer ${WRONG}`);
    t.equal(
      check(credential, '1.1.1.1', `Bearer ${TOKEN}`),
      'accepted',
      'ten thousand others have come since',
    );
  },
);

t.test('a missing token is no failure that counts', async (t) => {
  const credential = credentialOf(TOKEN);
  for (let attempt = 0; attempt < 10; attempt += 1)
    t.equal(check(credential, '1.1.1.1', undefined), 'no token');
  t.equal(check(credential, '1.1.1.1', `Bearer ${TOKEN}`), 'accepted');
});

t.test('a token that is taken away closes the route', async (t) => {
  const credential = credentialOf(TOKEN);
  t.ok(credential.isSet);
  credential.set(undefined);
  t.notOk(credential.isSet);
  t.equal(check(credential, '1.1.1.1', `Bearer ${TOKEN}`), 'no token is set');
});

function credentialOf(token: string): Credential {
  const credential = new Credential();
  credential.set(token);
  return credential;
}

function check(
  credential: Credential,
  address: string,
  authorization: string | undefined,
  port: 'service' | 'ops' = 'service',
): Attempt {
  return credential.check({ port, address, authorization });
}

t.test('the right token always gets in on the ops server, whatever was tried on either port', async (t) => {
  const credential = credentialOf(TOKEN);
  for (const port of ['service', 'ops'] as const)
    for (let attempt = 0; attempt < 6; attempt += 1) check(credential, '127.0.0.1', `Bearer ${WRONG}`, port);
  t.equal(check(credential, '127.0.0.1', `Bearer ${TOKEN}`, 'service'), 'too many failures');
  t.equal(check(credential, '127.0.0.1', `Bearer ${WRONG}`, 'ops'), 'too many failures');
  t.equal(check(credential, '127.0.0.1', `Bearer ${TOKEN}`, 'ops'), 'accepted');
});

/** The tokens are in no line of the log and in no file of the state directory. */
function secretIsNowhere(t: Test, { lines, stateDir }: Embedded): void {
  const files = readdirSync(stateDir, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => readFileSync(join(stateDir, name), 'utf8'));
  const all = [JSON.stringify(lines), ...files].join('\n');
  for (const secret of [TOKEN, WRONG]) t.notOk(all.includes(secret), `${secret} is nowhere`);
}
