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
  for (const stateDir of [file, join(file, 'below')]) {
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
