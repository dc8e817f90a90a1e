import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readRecords } from '../support/audit.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const TOKEN = 'the-right-token-0123456789';
const WRONG = 'a-wrong-token-0123456789';

async function attempt(port: number, authorization?: string): Promise<number> {
  const client = await RawClient.open(port);
  const headers = authorization === undefined ? undefined : { Authorization: authorization };
  return (await client.request('POST', '/admin/emergency-shutdown', headers).response()).status;
}

t.test('401, 403, 429 and 200 are on record, and no token is anywhere', async (t) => {
  const stateDir = tempDir(t);
  const tokenFile = join(tempDir(t), 'token');
  writeFileSync(tokenFile, `${TOKEN}\n`);
  const env = { ADMIN_TOKEN_FILE: tokenFile, LOG_LEVEL: 'trace', AUDIT_MODE: 'strict' };
  const service = await ServiceProcess.running(t, { stateDir, env });
  const { port, opsPort } = service;
  t.equal(await attempt(port), 401);
  t.equal(await attempt(port, `Basic ${WRONG}`), 401);
  for (let wrong = 0; wrong < 5; wrong += 1) t.equal(await attempt(port, `Bearer ${WRONG}`), 403);
  t.equal(await attempt(port, `Bearer ${WRONG}`), 429);
  t.equal(await attempt(port, `Bearer ${TOKEN}`), 429, 'the right one, too');
  t.equal(await attempt(opsPort), 401, 'each port has a count of its own');
  await service.stop();
  t.strictSame(await service.exited, { code: 0, signal: null });

  const results = readRecords(join(stateDir, 'audit.ndjson'), 'admin').map(({ result }) => result);
  t.strictSame(results, [
    ...['no token', 'no token'],
    ...new Array(5).fill('wrong token'),
    ...new Array(2).fill('too many failures'),
    'no token',
  ]);
  t.notOk(readdirSync(stateDir).includes('emergency.json'));

  // The same once more, and this time it is let in.
  const next = await ServiceProcess.running(t, { stateDir, env });
  t.equal(await attempt(next.port, `Bearer ${TOKEN}`), 200);
  await next.exited;
  t.match(readRecords(join(stateDir, 'audit.ndjson'), 'admin').at(-1), {
    result: 'accepted',
    client: '127.0.0.1',
  });

  for (const secret of [TOKEN, WRONG]) {
    const encoded = [secret, Buffer.from(secret).toString('base64'), Buffer.from(secret).toString('hex')];
    for (const entry of readdirSync(stateDir, { withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const { name } = entry;
      const content = readFileSync(join(stateDir, name), 'utf8');
      for (const text of encoded) t.notOk(content.includes(text), name);
    }
    for (const text of encoded) t.notOk(`${service.output}${next.output}`.includes(text), 'the log');
  }
});

t.test('without a token the door is closed, and the attempt is on record', async (t) => {
  const service = await ServiceProcess.running(t);
  t.equal(await attempt(service.port, `Bearer ${WRONG}`), 403);
  await service.stop();
  await service.exited;
  const file = join(service.stateDir, 'audit.ndjson');
  t.match(readRecords(file, 'admin'), [{ result: 'no token is set' }]);
  t.notOk(readFileSync(file, 'utf8').includes(WRONG));
});
