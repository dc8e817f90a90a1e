import { once } from 'node:events';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { embedded } from '../support/embedded-service.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

function taken(name: string, port: number, pid: number | undefined): RegExp {
  return new RegExp(
    `${name}: want a free port, got 127\\.0\\.0\\.1:${port}, which process ${pid} \\(node .*\\) listens on$`,
  );
}

/** A port of this machine that somebody else has. */
async function takenPort(t: Test): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => void server.close());
  return (server.address() as AddressInfo).port;
}

t.test('a taken port is named with its setting, before the application starts', async (t) => {
  const port = await takenPort(t);
  for (const [config, name] of [
    [{ port }, 'PORT'],
    [{ opsPort: port }, 'OPS_PORT'],
  ] as const) {
    const { service, stateDir } = embedded(t, {
      config,
      app: { start: () => t.fail('the application was started') },
    });
    await t.rejects(service.start(), {
      name: 'ConfigError',
      exitCode: 78,
      message: taken(name, port, process.pid),
    });
    t.equal(service.state, 'stopped');
    t.equal(service.address, null);
    t.equal(service.opsAddress, null);
    t.notOk(existsSync(join(stateDir, 'running.json')));
  }
});

t.test('all that can be found out before is told at once, and nothing is opened', async (t) => {
  const port = await takenPort(t);
  const env = {
    PORT: String(port),
    OPS_PORT: String(port),
    OPS_HOST: '127.0.0.2',
    ADMIN_TOKEN_FILE: '/no/token',
  };
  // The address is HOST's alone, but the port of the ops server is taken, too.
  const other = createServer().listen(port, '127.0.0.2');
  await once(other, 'listening');
  t.teardown(() => void other.close());
  const service = ServiceProcess.spawn(t, { env: { ...env, AUDIT_KEY_FILE: '/no/key' } });
  t.strictSame(await service.exited, { code: 78, signal: null });
  t.match(service.lines, [
    /^INFO: Service state: STARTING/,
    /^FATAL: ADMIN_TOKEN_FILE: want a file that can be read, got "\/no\/token"/,
    /^FATAL: AUDIT_KEY_FILE: want a file that can be read, got "\/no\/key"/,
    taken('^FATAL: PORT', port, process.pid),
    /^FATAL: OPS_PORT: want a free port, got 127\.0\.0\.2:/,
  ]);
  t.equal(service.lines.length, 5);
  t.strictSame(readdirSync(service.stateDir), []);
});

t.test('a port that is taken on one address only is found before, too', async (t) => {
  const server = createServer().listen(0, '127.0.0.9');
  await once(server, 'listening');
  t.teardown(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const service = ServiceProcess.spawn(t, { env: { HOST: '0.0.0.0', PORT: String(port) } });
  t.strictSame(await service.exited, { code: 78, signal: null });
  t.notMatch(service.output, 'Ops server');
  t.match(service.lines.at(-1), /^FATAL: PORT: want a free port, got 0\.0\.0\.0:/);
});

t.test('an audit log that cannot be written is told before the ops server listens', async (t) => {
  const service = ServiceProcess.spawn(t, { env: { AUDIT_LOG: '/no/such/directory/audit.ndjson' } });
  t.strictSame(await service.exited, { code: 74, signal: null });
  t.notMatch(service.output, 'Ops server');
});

t.test('a host that is not this machine is named with its setting', async (t) => {
  // 192.0.2.0/24 is kept for documentation (RFC 5737); .invalid never resolves (RFC 6761).
  for (const [config, message] of [
    [{ host: '192.0.2.1' }, /^HOST: want an address of this machine, got 192\.0\.2\.1:0 \(EADDRNOTAVAIL\)$/],
    [{ opsHost: '192.0.2.1' }, /^OPS_HOST: want an address of this machine, got 192\.0\.2\.1:0 \(/],
    [{ host: 'no-such-host.invalid' }, /^HOST: want an address of this machine, got no-such-host\.invalid:0/],
  ] as const) {
    const { service } = embedded(t, { config });
    await t.rejects(service.start(), { exitCode: 78, message });
  }
});

t.test('a state directory that cannot be one is named with its setting', async (t) => {
  const dir = tempDir(t);
  const file = join(dir, 'file');
  writeFileSync(file, '');
  // Below /proc Node's own recursive mkdir never comes back.
  for (const stateDir of [file, join(file, 'below'), '/proc/x', '/proc/x/y']) {
    const { service } = embedded(t, { stateDir: dir, config: { stateDir } });
    await t.rejects(service.start(), {
      exitCode: 78,
      message: new RegExp(`^STATE_DIR: want a directory that can be written, got "${stateDir}": E`),
    });
    t.equal(service.opsAddress, null);
  }
});

t.test('a service that runs keeps its port from a second, which ends with 78 and one line', async (t) => {
  const first = await ServiceProcess.running(t);
  const second = ServiceProcess.spawn(t, { env: { PORT: String(first.port) } });
  t.strictSame(await second.exited, { code: 78, signal: null });
  t.strictSame(second.lines.length, 2, second.output);
  t.match(second.lines[1], taken('FATAL: PORT', first.port, first.pid));
  t.strictSame(readdirSync(second.stateDir), []);
  t.equal((await first.operator('/readyz')).status, 200, 'the first does not notice');
});
