import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { ShutdownReport } from '../../src/lifecycle/last-shutdown.ts';
import type { OpenHold } from '../../src/ops/status.ts';
import { ServiceProcess } from '../support/service-process.ts';
import { WorkersService } from '../support/workers-service.ts';

/** Holds the drain by name, from a handler and outside of one, until a file is there. */
const APP = `
  import { existsSync, watch } from 'node:fs';
  import { join } from 'node:path';
  const DOORS = process.env.DOORS;
  const opened = (name) => new Promise((resolve) => {
    const look = () => existsSync(join(DOORS, name)) && (watcher.close(), resolve());
    const watcher = watch(DOORS, look);
    look();
  });
  let inFlight;
  export default {
    start: (context) => { inFlight = context.inFlight; },
    routes(router) {
      router.post('/request/:name', (request, response, context) => {
        const leave = context.inFlight.enter(context.params.name);
        void opened('door').then(leave);
        response.end(context.id);
      });
      router.post('/job/:name', (request, response, { params }) => {
        const leave = inFlight.enter(params.name);
        void opened('door').then(leave).then(leave);
        response.end();
      });
    },
  };`;

async function post(pool: WorkersService, path: string): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:${pool.port}${path}`, { method: 'POST' });
  t.equal(answer.status, 200);
  return answer.text();
}

function byName(holds: readonly OpenHold[]): { name: string; request: string | null }[] {
  return holds.map(({ name, request }) => ({ name, request })).sort((a, b) => a.name.localeCompare(b.name));
}

/** The command beside the service. */
function stopCommand(t: Test, pool: WorkersService, env: Record<string, string>): ServiceProcess {
  return ServiceProcess.spawn(t, { args: ['stop'], stateDir: pool.service.stateDir, env });
}

for (const workers of [0, 2]) {
  t.test(`WORKERS=${workers}: what blocks the drain is told by its name`, async (t) => {
    const pool = WorkersService.spawn(t, { workers, app: APP });
    await pool.service.accepting();
    const id = await post(pool, '/request/mail%20for%2017');
    await post(pool, '/job/job%2017%1b%5b2J');
    const { in_flight } = await pool.service.statusWhen(({ in_flight }) => in_flight.count === 2);
    const holds = [
      { name: 'job 17\u001b[2J', request: null },
      { name: 'mail for 17', request: id },
    ];
    t.strictSame(byName(in_flight.holds), holds, '/status');
    t.strictSame(in_flight.oldest, [], 'it is no request');

    const shown = ServiceProcess.spawn(t, { args: ['status'], stateDir: pool.service.stateDir });
    await shown.exited;
    t.match(shown.output, /^Service running: 2 in flight; held by (mail for|job) 17.*, \d+\.\d s$/m);
    t.match(shown.output, new RegExp(`^ +\\d+\\.\\d s {2}hold mail for 17 {2}${id}$`, 'm'));
    t.match(shown.output, /hold job 17\\u\{1b\}\[2J$/m, 'with its control characters escaped');

    await pool.service.stop();
    t.match(
      await pool.service.line('Held in flight'),
      /^INFO: Held in flight: "(job|mail).*" \(\d+(\.\d)?s\), "(job|mail).*" \(\d+(\.\d)?s\)$/,
    );
    const page = await pool.service.operator('/events');
    const reader = page.body?.getReader();
    const event = new TextDecoder().decode((await reader?.read())?.value);
    await reader?.cancel();
    t.match(event, /STOPPING - waiting for 2 requests and holds \((job|mail)/, 'the page');
    pool.open('door');
    t.strictSame(await pool.service.exited, { code: 0, signal: null }, 'and each leaves once');
    t.strictSame(pool.service.report().cut_holds, []);
  });

  t.test(`WORKERS=${workers}: what the deadline cuts is told by its name`, async (t) => {
    const pool = WorkersService.spawn(t, {
      workers,
      app: APP,
      env: { SHUTDOWN_TIMEOUT: '2' },
    });
    await pool.service.accepting();
    const id = await post(pool, '/request/mail');
    await post(pool, '/job/job%2017');
    await pool.service.statusWhen(({ in_flight }) => in_flight.count === 2);
    await pool.service.stop();
    t.strictSame(await pool.service.exited, { code: 1, signal: null });
    for (const name of ['mail', 'job 17']) {
      const line = `^WARNING: Cut held work: "${name}" \\([\\d.]+s\\), because the time is over$`;
      t.match(pool.service.output, new RegExp(line, 'm'));
    }
    t.notMatch(pool.service.output, 'piece of work', 'nothing is without a name');
    const report: ShutdownReport = pool.service.report();
    t.strictSame(byName(report.cut_holds), [
      { name: 'job 17', request: null },
      { name: 'mail', request: id },
    ]);
    t.match(report, { cut: [], in_flight_at_lock: 2, exit_code: 1 });
    t.ok(
      report.cut_holds.every(({ age_ms, reason }) => age_ms >= 2_000 && reason === 'the time is over'),
      JSON.stringify(report.cut_holds),
    );
  });
}

t.test('make stop shows the name while it waits, and when it was cut', async (t) => {
  const env = { PID_FILE: 'state/service.pid', SHUTDOWN_TIMEOUT: '2' };
  const pool = WorkersService.spawn(t, { workers: 0, app: APP, env });
  await pool.service.accepting();
  await post(pool, '/job/job%2017');
  const stopping = stopCommand(t, pool, { PID_FILE: join(pool.service.stateDir, 'service.pid') });
  t.match(await stopping.line('Draining'), /^Draining: 1 in flight, \d s left; held by job 17, \d+\.\d s$/);
  t.strictSame(await stopping.exited, { code: 1, signal: null });
  t.match(stopping.output, /^Stopped in .*, exit 1: 0 in flight completed, 1 cut, /m);
  t.match(stopping.output, /^ {2}cut: hold job 17 after \d+\.\d s$/m);
});

t.test('a worker that is blocked at the deadline: its holds are those it last told of', async (t) => {
  const app = APP.replace(
    'routes(router) {',
    `routes(router) {
      router.post('/block', () => { for (;;); });`,
  );
  const pool = WorkersService.spawn(t, { workers: 1, app, env: { SHUTDOWN_TIMEOUT: '1' } });
  await pool.service.accepting();
  await post(pool, '/job/job%2017');
  await pool.service.statusWhen(({ in_flight }) => in_flight.holds.length === 1);
  const blocked = await pool.connect();
  blocked.write('POST /block HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n');
  await pool.service.statusWhen(({ in_flight }) => in_flight.count === 2);
  pool.service.signal('SIGTERM');
  t.equal((await pool.service.exited).code, 1);
  t.match(pool.service.report(), { cut: [{ path: '/block' }], cut_holds: [{ name: 'job 17' }] });
  t.match(pool.service.output, 'Cut held work: "job 17"');
});
