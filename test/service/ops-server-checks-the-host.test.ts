import { hostname } from 'node:os';
import t from 'tap';
import { running } from '../support/embedded-service.ts';
import { RawClient, type RawResponse } from '../support/raw-client.ts';

const TOKEN = 'only-for-this-test-1';
const GUARDED = ['GET /', 'GET /status', 'HEAD /events', 'POST /admin/emergency-shutdown'];
/** By whatever name a platform knows this machine: a probe and a scrape carry no secret and change nothing. */
const OPEN = ['GET /livez', 'GET /readyz', 'GET /metrics'];

async function ask(port: number, line: string, host: string | undefined): Promise<RawResponse> {
  const client = await RawClient.open(port);
  const version = host === undefined ? 'HTTP/1.0' : `HTTP/1.1\r\nHost: ${host}`;
  client.write(`${line} ${version}\r\nAuthorization: Bearer ${TOKEN}\r\nContent-Length: 0\r\n\r\n`);
  const answer = await client.response({ head: line.startsWith('HEAD') });
  client.destroy();
  return answer;
}

t.test(
  'who calls the door by a name that is not its own gets nothing, and is told the setting',
  async (t) => {
    const { opsPort, service, line } = await running(t, { config: { adminToken: TOKEN } });
    for (const request of GUARDED) {
      for (const host of [
        'evil.example',
        'evil.example:8001',
        '127.0.0.1.evil.example',
        'localhost.evil.example',
      ]) {
        const { status, body } = await ask(opsPort, request, host);
        t.equal(status, 421, `${request} as ${host}`);
        if (!request.startsWith('HEAD')) t.match(body, 'add the name to OPS_ALLOWED_HOSTS');
      }
    }
    // RFC 9110 section 4.2.1: no host is none.
    t.equal((await ask(opsPort, 'GET /status', '')).status, 400);
    for (const request of OPEN) t.equal((await ask(opsPort, request, 'prometheus.svc')).status, 200, request);
    t.equal(service.state, 'running', 'a right token does not help who comes by a wrong name');

    for (const host of [
      '127.0.0.1',
      `127.0.0.1:${opsPort}`,
      '10.1.2.3:8001',
      '[::1]:8001',
      'localhost',
      'LOCALHOST:8001',
    ]) {
      for (const request of GUARDED.slice(0, 3))
        t.equal((await ask(opsPort, request, host)).status, 200, `${request} as ${host}`);
    }
    for (const host of [hostname(), `${hostname()}.:8001`, 'ops.localhost', undefined]) {
      t.equal((await ask(opsPort, 'GET /status', host)).status, 200, `as ${host}`);
    }
    t.equal((await ask(opsPort, 'POST /admin/emergency-shutdown', 'localhost')).status, 200);
    await line('Latched');
  },
);

t.test('OPS_ALLOWED_HOSTS adds names, and takes none away', async (t) => {
  const { opsPort } = await running(t, { config: { opsAllowedHosts: 'ops.example.com, Web1' } });
  for (const host of ['ops.example.com', 'OPS.example.com:443', 'web1', 'localhost', '192.0.2.1']) {
    t.equal((await ask(opsPort, 'GET /status', host)).status, 200, host);
  }
  for (const host of ['example.com', 'xops.example.com', 'web']) {
    t.equal((await ask(opsPort, 'GET /status', host)).status, 421, host);
  }
});

t.test('OPS_HOST is a name of its own', async (t) => {
  const { opsPort } = await running(t, { config: { opsHost: 'localhost' } });
  t.ok(opsPort > 0);
});
