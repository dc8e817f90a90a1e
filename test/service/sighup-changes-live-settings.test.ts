import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { completeConfig } from '../../src/config/settings.ts';
import { running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const TOKEN = 'correct-horse-battery';

/** A service whose settings stand in a `.env` that a test can edit. */
async function withDotenv(
  t: Test,
): Promise<{ service: ServiceProcess; edit: (text: string) => Promise<string> }> {
  const cwd = tempDir(t);
  const write = (text: string): void => writeFileSync(join(cwd, '.env'), `OPS_HOST=127.0.0.1\n${text}`);
  write('LOG_LEVEL=info\n');
  const service = await ServiceProcess.running(t, { cwd });
  // What a reload comes to is the line after the one that says it was received.
  const edit = async (text: string): Promise<string> => {
    write(text);
    const from = service.lines.length;
    service.signal('SIGHUP');
    return service.until(
      () => service.lines.slice(from).find((line) => /Settings reloaded|Reload refused/.test(line)),
      'the end of the reload',
    );
  };
  return { service, edit };
}

t.test('SIGHUP takes what was edited in .env, and a mistake in it changes nothing', async (t) => {
  const { service, edit } = await withDotenv(t);
  const ask = (path: string): Promise<Response> => fetch(`http://127.0.0.1:${service.port}${path}`);

  t.equal(
    await edit(`MAX_IN_FLIGHT=1\nRETRY_AFTER=42\nLOG_LEVEL=debug\nADMIN_TOKEN=${TOKEN}\n`),
    'INFO: Settings reloaded; the code stays (code needs WORKERS or a restart)',
  );
  t.ok(service.lines.includes('INFO: Received signal 1. Reloading...'));
  const busy = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  const refused = await ask('/');
  t.equal(refused.status, 503, 'the limit is in force');
  t.equal(refused.headers.get('retry-after'), '42', 'and so is the new Retry-After');

  // Bad values, in every one of these: the old ones stay, the new limit included.
  t.equal(
    await edit('MAX_IN_FLIGHT=0\nSHUTDOWN_TIMEOUT=soon\nLOG_LEVEL=loud\nADMIN_TOKEN=short\n'),
    'ERROR: Reload refused, generation 2 goes on serving: ' +
      'SHUTDOWN_TIMEOUT: want a number of seconds >= 0, at most 86400, got "soon"; ' +
      'LOG_LEVEL: want one of trace, debug, info, warn, error, fatal, silent, got "loud"; ' +
      'ADMIN_TOKEN: want 16 or more printable characters without a space, got 5 characters',
  );
  t.match(
    await edit('MAX_IN_FLIGHT=0\nADMIN_TOKEN_FILE=/no/such/file\n'),
    /^ERROR: Reload refused, .*ADMIN_TOKEN_FILE: want a file/,
  );
  t.equal(
    await edit('MAX_IN_FLIGHT=0\nENABLE_FAIL_SAFE=false\nOPS_HOST=0.0.0.0\n'),
    'ERROR: Reload refused, generation 2 goes on serving: ' +
      'OPS_HOST cannot change in a reload; restart to change it; ' +
      'ENABLE_FAIL_SAFE cannot change in a reload; restart to change it',
  );
  t.equal((await ask('/')).status, 503, 'still');

  // What the environment says is not changed by the file, and so is no difference. What is gone has its default again.
  t.equal(
    await edit('PORT=1\n'),
    'INFO: Settings reloaded; the code stays (code needs WORKERS or a restart)',
  );
  t.equal((await ask('/')).status, 200);

  service.release('a');
  t.equal((await busy.response()).status, 200, 'and nothing in flight has noticed');
  t.notMatch(service.output, TOKEN);

  const held = (await RawClient.open(service.port)).get('/hold/b');
  await service.line('holding b');
  service.signal('SIGTERM');
  await service.line('STOPPING');
  service.signal('SIGHUP');
  t.equal(
    await service.line('the service is stopping'),
    'ERROR: Reload refused, generation 3 goes on serving: the service is stopping',
  );
  service.release('b');
  t.equal((await held.response()).status, 200);
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test('every live setting is in force after a reload', async (t) => {
  const made = await running(t, { config: { adminToken: TOKEN } });
  const { service, stateDir, operator } = made;
  const base = { host: '127.0.0.1', port: 0, opsPort: 0, stateDir, auditLog: 'off' } as const;
  const emergency = (token: string): Promise<Response> =>
    operator('/admin/emergency-shutdown', { method: 'POST', headers: { authorization: `Bearer ${token}` } });

  const most = service.server.maxConnections;
  const other = 'another-horse-battery';
  await service.reload(
    completeConfig({
      ...base,
      ...{ keepAliveTimeoutMs: 1000, headersTimeoutMs: 2000, requestTimeoutMs: 3000, maxConnections: 4 },
      ...{ maxRequestsPerSocket: 5, logLevel: 'warn', adminToken: other, shutdownTimeoutMs: 10_000 },
      stopBudgetMs: 1000,
    }),
  );
  t.match(service.server, {
    ...{ keepAliveTimeout: 1000, headersTimeout: 2000, requestTimeout: 3000, maxConnections: 4 },
    maxRequestsPerSocket: 5,
  });
  t.equal((await emergency(TOKEN)).status, 403, 'the old token is none any more');
  t.ok(made.lines.some(({ msg }) => msg.startsWith('STOP_BUDGET: a stop can take 15s')));

  await service.reload(completeConfig(base));
  t.match(service.server, { keepAliveTimeout: 65_000, headersTimeout: 60_000, maxRequestsPerSocket: 0 });
  t.equal(service.server.maxConnections, most, 'no limit again but that of the descriptors');
  t.equal((await emergency(other)).status, 403, 'and the route is closed');

  await service.reload(
    completeConfig({ ...base, logLevel: 'info', shutdownDelayMs: 60_000, shutdownTimeoutMs: 7000 }),
  );
  const stopped = service.stop();
  t.ok(made.lines.some(({ msg }) => msg.startsWith('Lame duck for 60s')));
  t.match(await service.status(), { shutdown: { remaining_seconds: 67 } });
  await service.force('the end of the test');
  await stopped;
});

t.test('a token file that is gone leaves everything as it was', async (t) => {
  const { service, operator, stateDir } = await running(t, {
    config: { adminToken: TOKEN, keepAliveTimeoutMs: 9000 },
  });
  await t.rejects(
    () =>
      service.reload(
        completeConfig({ host: '127.0.0.1', port: 0, opsPort: 0, stateDir, adminTokenFile: '/no/such/file' }),
      ),
    { name: 'ConfigError', message: /^ADMIN_TOKEN_FILE: want a file that can be read/ },
  );
  t.equal(service.server.keepAliveTimeout, 9000);
  const answer = await operator('/admin/emergency-shutdown', {
    method: 'POST',
    headers: { authorization: `Bearer ${TOKEN}` },
  });
  t.equal(answer.status, 200);
});
