import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { sendJson } from '../../src/index.ts';
import { version } from '../../src/version.ts';
import { Doors, embedded, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const REPORT = 'last-shutdown.json';
const RUNNING = 'running.json';

/** The value of a metric without labels, or undefined when it is not there. */
function metric(text: string, name: string): number | undefined {
  const line = text.split('\n').find((line) => line.startsWith(`master_agent_${name} `));
  return line === undefined ? undefined : Number(line.split(' ')[1]);
}

t.test('a stop leaves its report, which the next start shows', async (t) => {
  const stateDir = tempDir(t);
  const doors = new Doors();
  const first = await running(t, {
    stateDir,
    app: {
      routes(router) {
        router.get('/hold/:name', async (_request, response, { params }) => {
          doors.open(`held ${params.name}`);
          await doors.wait(`release ${params.name}`);
          sendJson(response, 200, {});
        });
      },
    },
  });
  t.match(JSON.parse(readFileSync(join(stateDir, RUNNING), 'utf8')), {
    unclean: true,
    pid: process.pid,
    operator_door: `http://127.0.0.1:${first.opsPort}`,
  });
  const open = async (name: string): Promise<RawClient> => {
    const client = (await RawClient.open(first.port)).get(`/hold/${name}?secret=1`);
    await doors.wait(`held ${name}`);
    return client;
  };
  const [done, gone, cut] = [await open('done'), await open('gone'), await open('cut')];
  const idle = await RawClient.open(first.port);
  const stopped = first.service.stop('the test');
  t.equal((await idle.get('/').response()).status, 503);
  doors.open('release done');
  t.equal((await done.response()).status, 200);
  gone.destroy();
  // Its end is seen when it is no longer in flight.
  const watcher = await RawClient.open(first.opsPort);
  for (let count = 3; count > 1; ) {
    count = JSON.parse((await watcher.get('/status').response()).body).in_flight.count;
  }
  await first.service.force('impatience');
  await cut.ended;
  const report = await stopped;

  const kept = JSON.parse(readFileSync(join(stateDir, REPORT), 'utf8'));
  t.strictSame(kept, report, 'the file is what the program was given');
  const { started_at, stopped_at, duration_seconds, cut: cutRequests, ...rest } = kept;
  t.strictSame(rest, {
    unclean: false,
    pid: process.pid,
    version,
    reason: 'the test',
    in_flight_at_lock: 3,
    completed: 1,
    aborted: 1,
    closed: 0,
    cut_holds: [],
    rejected: 1,
    exit_code: 1,
  });
  t.match(cutRequests, [{ id: String, method: 'GET', path: '/hold/cut', age_ms: Number }]);
  t.equal(cutRequests.length, 1);
  t.ok(Date.parse(started_at) <= Date.parse(stopped_at));
  t.ok(duration_seconds > 0);
  t.strictSame(readdirSync(stateDir), [REPORT, 'lock'], 'no note that a run is under way, and no draft');

  const second = await running(t, { stateDir });
  t.strictSame(
    ((await (await second.operator('/status')).json()) as { last_shutdown: unknown }).last_shutdown,
    kept,
  );
  const text = await (await second.operator('/metrics')).text();
  t.equal(metric(text, 'last_shutdown_unclean'), 0);
  t.equal(metric(text, 'last_shutdown_duration_seconds'), duration_seconds);
  t.equal(metric(text, 'last_shutdown_timestamp_seconds'), Date.parse(stopped_at) / 1000);
  t.equal(metric(text, 'last_shutdown_in_flight_requests'), 3);
  t.equal(metric(text, 'last_shutdown_cut_requests'), 1);
  t.equal(metric(text, 'last_shutdown_rejected_requests'), 1);
  t.equal(metric(text, 'last_shutdown_exit_code'), 1);
  t.match(text, /^master_agent_last_shutdown_info\{reason="the test"\} 1$/m);
  t.notOk(
    second.lines.some(({ msg }) => msg.includes('ended without a shutdown')),
    'nothing to complain of',
  );
});

t.test('without a shutdown before it there is none to tell of', async (t) => {
  const { operator } = await running(t);
  t.match(await (await operator('/status')).json(), { last_shutdown: null });
  t.notMatch(await (await operator('/metrics')).text(), 'last_shutdown');
});

t.test('a killed process leaves no report, and the next start says so', async (t) => {
  const stateDir = tempDir(t);
  const killed = await ServiceProcess.running(t, { stateDir });
  killed.signal('SIGKILL');
  await killed.exited;

  const { lines, operator, service } = await running(t, { stateDir });
  const warning = lines.find(({ level }) => level === 'warn');
  t.match(warning?.msg, `The run before this one (pid ${killed.pid}, started `);
  t.match(warning?.msg, /ended without a shutdown$/);
  t.match(await (await operator('/status')).json(), {
    last_shutdown: { unclean: true, pid: killed.pid, started_at: /^\d{4}-/ },
  });
  const text = await (await operator('/metrics')).text();
  t.equal(metric(text, 'last_shutdown_unclean'), 1);
  t.equal(metric(text, 'last_shutdown_exit_code'), undefined);
  await service.stop();
  const after = await running(t, { stateDir });
  t.match(await (await after.operator('/status')).json(), { last_shutdown: { unclean: false } });
});

t.test('an unclean end is still told of when the next start fails', async (t) => {
  const stateDir = tempDir(t);
  writeFileSync(join(stateDir, RUNNING), JSON.stringify({ pid: 4711, started_at: '2026-01-02T03:04:05Z' }));
  const broken = embedded(t, {
    stateDir,
    app: {
      start() {
        throw new Error('not today');
      },
    },
  });
  await t.rejects(broken.service.start(), /not today/);
  const { service } = await running(t, { stateDir });
  t.match(await service.status(), { last_shutdown: { unclean: true, pid: 4711 } });
});

t.test('files that were torn by a crash are no obstacle', async (t) => {
  const stateDir = tempDir(t);
  writeFileSync(join(stateDir, REPORT), '{"unclean":fal');
  const one = await running(t, { stateDir });
  t.match(await one.service.status(), { last_shutdown: null });
  await one.service.stop();

  writeFileSync(join(stateDir, RUNNING), '');
  const two = await running(t, { stateDir });
  t.match(await two.service.status(), { last_shutdown: { unclean: true, pid: 0, started_at: '' } });
  await two.service.stop();
  t.notOk(existsSync(join(stateDir, RUNNING)));
});

t.test('a report that cannot be kept does not hold up the end', async (t) => {
  const { service, stateDir, lines } = await running(t);
  // A directory cannot be replaced by a file.
  mkdirSync(join(stateDir, REPORT));
  t.match(await service.stop(), { exit_code: 0 });
  t.ok(lines.some(({ msg }) => msg.startsWith('The report of this stop could not be kept: ')));
  t.equal(service.state, 'stopped');
});
