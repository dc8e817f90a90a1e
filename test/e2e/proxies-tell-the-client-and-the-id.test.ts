import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import t from 'tap';
import { readRecords } from '../support/audit.ts';
import { PROXIES, Replica } from '../support/replicas.ts';

const ID = { haproxy: /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/, nginx: /^[\da-f]{32}$/ } as const;
/** An address of this machine that is not the proxy's. */
const CLIENT = '127.0.0.2';

/** What a client may write of itself. */
const CLAIMS = [
  {},
  { 'X-Request-Id': 'chosen-by-a-client', 'X-Forwarded-For': '203.0.113.9', Forwarded: 'for=203.0.113.9' },
  { Forwarded: 'for=203.0.113.9, for=127.0.0.1' },
];

async function idOf(port: number, headers: Readonly<Record<string, string>>): Promise<unknown> {
  const asked = request({ host: '127.0.0.1', port, localAddress: CLIENT, headers, agent: false }).end();
  const [answer]: IncomingMessage[] = await once(asked, 'response');
  answer?.resume();
  return answer?.headers['x-request-id'];
}

for (const name of ['haproxy', 'nginx'] as const) {
  t.test(
    `the shipped ${name} sends the client and an id of its own, whatever the client claims`,
    async (t) => {
      const env = { TRUSTED_PROXIES: '127.0.0.1' };
      const replicas = [await Replica.running(t, env), await Replica.running(t, env)] as const;
      const port = await PROXIES[name](t, replicas);
      const ids = [];
      for (const claim of CLAIMS) ids.push(await idOf(port, claim));
      for (const replica of replicas) await replica.stop();
      const files = replicas.map(({ stateDir }) => join(stateDir, 'audit.ndjson'));
      const records = files.flatMap((file) =>
        readRecords(file, 'request').filter(({ path }) => path === '/'),
      );
      t.strictSame(records.map(({ id }) => id).sort(), ids.sort(), 'the client has the id that is on record');
      for (const { id, client } of records) {
        t.match(id, ID[name]);
        t.equal(client, CLIENT);
      }
    },
  );
}
