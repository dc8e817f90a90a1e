import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { readHead } from '../../src/audit/head.ts';
import { verify } from '../../src/audit/verify.ts';
import { readRecords } from '../support/audit.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { POLL_MS, ServiceProcess, type SpawnOptions } from '../support/service-process.ts';

const APP = join(ROOT, 'test/fixtures/misbehaving-app.mjs');

function options(misbehave = '', env: SpawnOptions['env'] = {}): SpawnOptions {
  return { args: [APP], env: { MISBEHAVE: misbehave, ...env } };
}

/** A request that is in flight until the test releases it. */
async function held(service: ServiceProcess): Promise<RawClient> {
  const client = (await RawClient.open(service.port)).get('/hold');
  await service.line('holding');
  return client;
}

function assertAudit(t: Test, { stateDir }: ServiceProcess): void {
  const file = join(stateDir, 'audit.ndjson');
  t.equal(verify([file], { head: readHead(file) }).finding, undefined, 'the audit log verifies');
}

t.test('a handler that fails harms nobody else, whatever it does, and not the stop', async (t) => {
  const service = await ServiceProcess.running(t, options());
  const other = await held(service);
  const failing = [
    ['/throw', 500],
    ['/reject', 500],
    ['/throw-nothing', 500],
    ['/after-head', undefined],
    ['/in-stream', undefined],
    ['/twice', 200],
    ['/write-after-end', 200],
    ['/destroy', undefined],
    ['/leak', 200],
    ['/own-server', 200],
  ] as const;
  for (const [path, status] of failing) {
    const guilty = (await RawClient.open(service.port)).get(path);
    if (status === undefined) await t.rejects(guilty.response(), `${path}: no whole answer`);
    else t.equal((await guilty.response()).status, status, path);
    guilty.destroy();
    t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200, `after ${path}`);
    await service.statusWhen(({ in_flight }) => in_flight.count === 1);
  }
  await service.stop();
  service.release('a');
  t.equal((await other.response()).status, 200);
  t.strictSame(await service.exited, { code: 0, signal: null });
  assertAudit(t, service);
});

for (const path of ['/throw-later', '/reject-later']) {
  t.test(`${path}: the service stops, with what is in flight, and exits with 70`, async (t) => {
    const service = await ServiceProcess.running(t, options());
    const other = await held(service);
    (await RawClient.open(service.port)).get(path);
    await service.line('FATAL: Crash');
    await service.stop();
    service.release('a');
    t.equal((await other.response()).status, 200);
    t.strictSame(await service.exited, { code: 70, signal: null });
    assertAudit(t, service);
  });
}

t.test('a handler that never settles is cut at the deadline, by name', async (t) => {
  const service = await ServiceProcess.running(t, options('', { SHUTDOWN_TIMEOUT: '0.5' }));
  (await RawClient.open(service.port)).get('/never');
  await service.line('never settles');
  await service.stop();
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(service.output, /Cut in-flight request: GET \/never after/);
  assertAudit(t, service);
});

t.test('process.exit(0) while running: exit 70, what it cuts is named and on record', async (t) => {
  const service = await ServiceProcess.running(t, options());
  const file = join(service.stateDir, 'audit.ndjson');
  await held(service);
  // While a write is under way, what the end still has to record goes to the log.
  while (!readFileSync(file, 'utf8').includes('"state":"running"')) await delay(POLL_MS);
  (await RawClient.open(service.port)).get('/exit');
  t.strictSame(await service.exited, { code: 70, signal: null });
  t.match(service.output, /FATAL: The application has ended the process, with 0/);
  t.match(service.output, /Cut in-flight request: GET \/hold after/);
  const records = readRecords(file, 'request');
  t.match(
    records.filter(({ path }) => path === '/hold').map(({ outcome }) => outcome)[0],
    'cut',
    'what was in flight is on record',
  );
  assertAudit(t, service);
});

for (const way of ['take the signals', 'take everything']) {
  t.test(`${way}: the service still stops as it promises`, async (t) => {
    const service = await ServiceProcess.running(t, options(way));
    const other = await held(service);
    await service.stop();
    service.release('a');
    // Where all listeners were taken, so was the channel by which the test releases.
    if (way === 'take the signals') {
      t.equal((await other.response()).status, 200);
      t.strictSame(await service.exited, { code: 0, signal: null });
    } else {
      service.signal('SIGINT');
      await service.until(() => (service.output.includes('STOPPING') ? true : undefined), 'the lock');
      const impatience = setInterval(() => service.signal('SIGINT'), 50);
      t.strictSame(await service.exited, { code: 1, signal: null });
      clearInterval(impatience);
    }
    assertAudit(t, service);
  });
}

for (const [way, code, line] of [
  ['throw in start', 70, 'start() of'],
  ['exit in start', 70, 'The application has ended the process'],
  ['throw in stop', 70, "The application's stop() failed"],
  ['hang in stop', 1, "The application's stop() was not done"],
  ['exit in stop', 0, 'process.exit(0) is held back until the stop is over'],
] as const) {
  t.test(`${way}: exit ${code}`, async (t) => {
    const service = ServiceProcess.spawn(t, options(way, { SHUTDOWN_TIMEOUT: '1' }));
    if (way.endsWith('stop')) {
      await service.accepting();
      service.signal('SIGTERM');
    }
    t.strictSame(await service.exited, { code, signal: null });
    t.match(service.output, line);
    assertAudit(t, service);
  });
}

t.test('a start that hangs is left behind by a stop', async (t) => {
  const service = ServiceProcess.spawn(t, options('hang in start'));
  await service.line('hanging in start');
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test('a blocked loop: alone the stop waits until it turns, then its deadline holds', async (t) => {
  const service = await ServiceProcess.running(t, options('', { BLOCK_MS: '1500', SHUTDOWN_TIMEOUT: '0.5' }));
  await held(service);
  (await RawClient.open(service.port)).get('/block');
  await service.line('blocking');
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(service.output, /Cut in-flight request: GET \/hold/);
});

t.test('a blocked loop: under the supervisor the stop ends at its deadline all the same', async (t) => {
  const env = { WORKERS: '1', BLOCK_MS: '600000', SHUTDOWN_TIMEOUT: '1' };
  const service = await ServiceProcess.running(t, options('', env));
  (await RawClient.open(service.port)).get('/block');
  await service.line('blocking');
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(service.output, /Cut in-flight request: GET \/block/);
  assertAudit(t, service);
});

for (const path of ['/exit', '/memory']) {
  t.test(`${path} under the supervisor: the worker is replaced, the service goes on`, async (t) => {
    const env = { WORKERS: '1', NODE_OPTIONS: '--max-old-space-size=40' };
    const service = await ServiceProcess.running(t, options('', env));
    (await RawClient.open(service.port)).get(path);
    await service.statusWhen(
      ({ workers }) =>
        workers?.some(({ state }) => state === 'serving') === true && service.output.includes('Worker'),
    );
    t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);
    await service.stop();
    t.strictSame(await service.exited, { code: 0, signal: null });
  });
}

t.test('no memory left: alone the process ends, and the next start says so and serves', async (t) => {
  const first = await ServiceProcess.running(t, options('', { NODE_OPTIONS: '--max-old-space-size=40' }));
  (await RawClient.open(first.port)).get('/memory');
  t.not((await first.exited).code, 0);
  const next = await ServiceProcess.running(t, { ...options(), stateDir: first.stateDir });
  t.match(next.output, 'ended without a shutdown');
  await next.stop();
  t.strictSame(await next.exited, { code: 0, signal: null });
  assertAudit(t, next);
});
