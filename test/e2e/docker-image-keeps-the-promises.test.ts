import { chmodSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t from 'tap';
import { compose } from '../support/compose.ts';
import { DockerBox } from '../support/docker-box.ts';
import { RawClient } from '../support/raw-client.ts';
import { freePort } from '../support/replicas.ts';
import { tempDir } from '../support/service-process.ts';

const BASE = 'node:24-bookworm-slim';
const IMAGE = 'master-agent';
const ADMIN_TOKEN = 'the-token-of-the-administrator';
const docker = await DockerBox.start(t, BASE);

// As the compose file asks for it. The network is the host's, because the daemon of the test has none of its own.
const { service } = compose();
const restrictions = [
  '--network=host',
  '--read-only',
  ...service.cap_drop.map((name) => `--cap-drop=${name}`),
  ...service.security_opt.map((option) => `--security-opt=${option}`),
];

/** Starts one with the test application mounted, and comes back when it serves. */
async function run(name: string, ...args: string[]): Promise<{ port: number; opsPort: number }> {
  const [port, opsPort] = [await freePort(), await freePort()];
  const app = [
    '--volume',
    `${resolve('test/fixtures')}:/opt/master-agent/app:ro`,
    '--env',
    'APP=app/container-app.mjs',
  ];
  const ports = ['--env', `PORT=${port}`, '--env', `OPS_PORT=${opsPort}`, '--env', 'HOST=127.0.0.1'];
  await docker.ok('run', '--detach', '--name', name, ...restrictions, ...app, ...ports, ...args, IMAGE);
  await docker.line(name, 'Service state: RUNNING');
  return { port, opsPort };
}

t.test('it is built, small, not root, and says how it is stopped and probed', async (t) => {
  await docker.ok('build', '--network=host', '--file', 'deployment/Dockerfile', '--tag', IMAGE, '.');
  t.match(await docker.inspect('.Config', IMAGE), {
    User: '1000:1000',
    StopSignal: 'SIGTERM',
    Entrypoint: ['node', 'dist/main.js'],
    Volumes: { '/var/lib/master-agent': {} },
    Healthcheck: { Test: ['CMD', 'node', '-e', String] },
    Labels: { 'org.opencontainers.image.title': 'master-agent' },
  });
  const added =
    (await docker.inspect<number>('.Size', IMAGE)) - (await docker.inspect<number>('.Size', BASE));
  t.ok(added < 15_000_000, `${added} bytes on top of its base`);
  const { stdout } = await docker.run(
    'run',
    '--rm',
    '--network=none',
    '--entrypoint',
    'node',
    IMAGE,
    '-e',
    `
    const { readdirSync } = require('node:fs');
    console.log(readdirSync('.').join(), readdirSync('node_modules').includes('typescript'), process.getuid());`,
  );
  t.equal(stdout.trim(), 'LICENSE,dist,node_modules,package.json false 1000');
});

t.test('docker stop drains: what is in flight is answered, and it ends with 0', async (t) => {
  const { port } = await run('stopped');
  t.match(
    await docker.run(
      'exec',
      'stopped',
      ...(await docker.inspect<string[]>('.Config.Healthcheck.Test', IMAGE)).slice(1),
    ),
    {
      code: 0,
    },
    'the health check of a container that serves',
  );
  const held = (await RawClient.open(port)).get('/hold');
  await docker.line('stopped', 'holding');
  const stopped = docker.ok('stop', '--time', String(service.stopSeconds), 'stopped');
  await docker.line('stopped', 'Service state: STOPPING');
  t.not(
    (
      await docker.run(
        'exec',
        'stopped',
        ...(await docker.inspect<string[]>('.Config.Healthcheck.Test', IMAGE)).slice(1),
      )
    ).code,
    0,
    'and of one that stops',
  );
  const { status } = await (await RawClient.open(port)).get('/release').response();
  t.equal(status, 503, 'locked');
  await docker.ok('kill', '--signal', 'WINCH', 'stopped');
  t.equal((await held.response()).status, 200);
  await stopped;
  t.equal(await docker.inspect('.State.ExitCode', 'stopped'), 0);
});

t.test('after an emergency shutdown it stays down, also in a new container on the same volume', async (t) => {
  const secrets = tempDir(t);
  chmodSync(secrets, 0o755);
  writeFileSync(join(secrets, 'admin-token'), ADMIN_TOKEN, { mode: 0o644 });
  const kept = ['--volume', 'state:/var/lib/master-agent', '--volume', `${secrets}:/run/secrets:ro`];
  const token = ['--env', `ADMIN_TOKEN_FILE=${service.environment.ADMIN_TOKEN_FILE}`];
  const { opsPort } = await run('emergency', ...kept, ...token, `--restart=${service.restart}`);
  const asked = await fetch(`http://127.0.0.1:${opsPort}/admin/emergency-shutdown`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
  });
  t.equal(asked.status, 200);
  t.equal(await docker.ok('wait', 'emergency'), '0');
  t.match(await docker.inspect('.State', 'emergency'), { Status: 'exited', ExitCode: 0 }, 'not: restarting');
  t.equal(await docker.inspect('.RestartCount', 'emergency'), 0, 'the restart policy leaves it down');
  const again = await docker.run('run', '--rm', ...restrictions, ...kept, IMAGE);
  t.equal(again.code, 75);
  t.match(again.stdout + again.stderr, 'Latched by an emergency shutdown');
});

t.test('a volume serves one container at a time, and is free when that is killed', async (t) => {
  const kept = ['--volume', 'shared:/var/lib/master-agent'];
  await run('first', ...kept);
  const ports = ['--env', `PORT=${await freePort()}`, '--env', `OPS_PORT=${await freePort()}`];
  const second = await docker.run('run', '--rm', ...restrictions, ...kept, ...ports, IMAGE);
  t.equal(second.code, 78);
  t.match(second.stdout + second.stderr, 'is in use by process');
  await docker.ok('kill', 'first');
  await run('third', ...kept);
  await docker.line('third', 'The run before this one');
});
