import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t from 'tap';
import { parse, stringify } from 'yaml';
import type { Status } from '../../src/ops/status.ts';
import { DockerBox } from '../support/docker-box.ts';
import { need } from '../support/need.ts';
import { RawClient } from '../support/raw-client.ts';
import { freePort } from '../support/replicas.ts';
import { tempDir } from '../support/service-process.ts';

const ADMIN_TOKEN = 'the-token-of-the-administrator';
const SERVICE = 'master-agent';

const box = await DockerBox.start(t, 'node:24-bookworm-slim');
need('docker-compose');

const [port, opsPort] = [await freePort(), await freePort()];
const project = tempDir(t);
const file = join(project, 'docker-compose.yml');
prepare();

/** `docker-compose up`, `stop` and the like. */
function compose(...args: string[]) {
  return box.compose('--project-name', 'test', '--file', file, ...args);
}

t.test('up builds and starts it; it is healthy', async (t) => {
  t.equal((await compose('up', '--build', '--detach')).code, 0);
  await box.line(await container(), 'Service state: RUNNING');
  t.equal((await operator('/readyz')).status, 200);
});

t.test('stop waits for what is in flight, and refuses the rest', async (t) => {
  const name = await container();
  const held = (await RawClient.open(port)).get('/hold');
  await box.line(name, 'holding');
  const stopped = compose('stop');
  await box.line(name, 'Service state: STOPPING');
  t.equal((await (await RawClient.open(port)).get('/').response()).status, 503);
  await box.ok('kill', '--signal', 'WINCH', name);
  t.equal((await held.response()).status, 200);
  t.equal((await stopped).code, 0);
  t.equal(await box.inspect('.State.ExitCode', name), 0);
  t.match((await compose('logs', '--no-color')).stdout, /STOPPED - All requests completed gracefully/);
});

t.test(
  'start and restart: what was asked before is answered, and the report outlives the process',
  async (t) => {
    t.equal((await compose('start')).code, 0);
    const name = await container();
    await reachable();
    const held = (await RawClient.open(port)).get('/hold');
    await inFlight(1);
    const restarted = compose('restart');
    await notReady();
    await box.ok('kill', '--signal', 'WINCH', name);
    t.equal((await held.response()).status, 200);
    t.equal((await restarted).code, 0);
    await reachable();
    const status = await (await operator('/status')).json();
    t.match(status, { last_shutdown: { exit_code: 0, in_flight_at_lock: 1, completed: 1 } });
  },
);

t.test('what does not end is cut at SHUTDOWN_TIMEOUT, before Docker kills', async (t) => {
  const name = await container();
  const hanging = (await RawClient.open(port)).get('/hold');
  await inFlight(1);
  t.equal((await compose('stop')).code, 0);
  t.equal(await hanging.ended, 'fin');
  t.equal(await box.inspect('.State.ExitCode', name), 1, 'not 137');
  t.match((await compose('logs', '--no-color')).stdout, /Cut in-flight request: GET \/hold/);
});

t.test('after an emergency shutdown neither the daemon nor up brings it back', async (t) => {
  t.equal((await compose('start')).code, 0);
  const name = await container();
  await reachable();
  const asked = await fetch(`http://127.0.0.1:${opsPort}/admin/emergency-shutdown`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
  });
  t.equal(asked.status, 200);
  await box.ok('wait', name);
  t.equal(await box.inspect('.State.Status', name), 'exited');
  t.equal((await compose('up', '--force-recreate', '--detach')).code, 0);
  const again = await container();
  t.not(again, name, 'a new container, on the same volume');
  await until(async () => (await box.inspect<number>('.RestartCount', again)) === 5);
  await until(async () => (await box.inspect<string>('.State.Status', again)) === 'exited');
  t.equal(await box.inspect('.State.ExitCode', again), 75);
  t.match((await compose('logs', '--no-color')).stdout, /Latched by an emergency shutdown/);
});

/**
 * The shipped file, with the test's application. The daemon of the test has no network of its own, so ports are not
 * published, but the host's; and the deadline comes sooner.
 */
function prepare(): void {
  const text = parse(readFileSync('deployment/docker-compose.yml', 'utf8'));
  const { ports: _, ...service } = text.services[SERVICE];
  mkdirSync(join(project, 'secrets'));
  chmodSync(project, 0o755);
  writeFileSync(join(project, 'secrets/admin-token'), ADMIN_TOKEN, { mode: 0o644 });
  text.secrets['admin-token'].file = join(project, 'secrets/admin-token');
  text.services[SERVICE] = {
    ...service,
    build: { ...service.build, context: resolve('.'), network: 'host' },
    network_mode: 'host',
    volumes: [...service.volumes, `${resolve('test/fixtures')}:/opt/master-agent/app:ro`],
    environment: {
      ...service.environment,
      ...{ APP: 'app/container-app.mjs', HOST: '127.0.0.1', OPS_HOST: '127.0.0.1' },
      ...{ PORT: String(port), OPS_PORT: String(opsPort), SHUTDOWN_TIMEOUT: '5' },
    },
  };
  writeFileSync(file, stringify(text));
}

async function container(): Promise<string> {
  return (await compose('ps', '--quiet', '--all', SERVICE)).stdout.trim();
}

function operator(path: string): Promise<Response> {
  return fetch(`http://127.0.0.1:${opsPort}${path}`);
}

async function reachable(): Promise<void> {
  await until(async () => (await operator('/readyz')).status === 200);
}

async function notReady(): Promise<void> {
  await until(async () => (await operator('/readyz')).status === 503);
}

async function inFlight(count: number): Promise<void> {
  await until(async () => ((await (await operator('/status')).json()) as Status).in_flight.count === count);
}

/** Asks until it is so; the test's own limit ends what never is. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  while (!(await isSo().catch(() => false))) await new Promise((resolve) => setTimeout(resolve, 50));
}
