import { mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { ShutdownReport } from '../../src/lifecycle/last-shutdown.ts';
import { tempDir } from '../support/service-process.ts';
import { WorkersService } from '../support/workers-service.ts';

const TOKEN = 'a-token-that-is-long-enough';

/** A stop as it is told: what people search for in the log, what is in the report, and what is on record. */
interface Told {
  readonly lines: readonly string[];
  readonly report: Partial<ShutdownReport>;
  readonly records: readonly string[];
  readonly code: number | null;
}

interface Stop {
  readonly env?: Record<string, string>;
  /** Without one the service is stopped while it starts. */
  readonly app?: string;
  readonly starts?: false;
  /** What only an application's module can do. */
  readonly isOfModules?: true;
  /** Brings about the stop, and lets what is to complete complete. */
  readonly play: (pool: WorkersService, t: Test) => Promise<void>;
}

/** Holds a request in flight. */
async function hold(pool: WorkersService, name = 'a'): Promise<{ status: () => Promise<number> }> {
  const client = (await pool.connect()).get(`/hold/${name}`);
  await pool.service.line(`holding ${name}`);
  return { status: async () => (await client.response()).status };
}

async function stopping(pool: WorkersService, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  pool.service.signal(signal);
  await pool.service.line('Service state: STOPPING');
}

const STOPS: Readonly<Record<string, Stop>> = {
  'nothing in flight': { play: async (pool) => pool.service.signal('SIGTERM') },
  'in flight completes': {
    play: async (pool, t) => {
      const held = await hold(pool);
      await stopping(pool);
      t.equal((await pool.get()).status, 503);
      pool.open('a');
      t.equal(await held.status(), 200);
    },
  },
  deadline: {
    env: { SHUTDOWN_TIMEOUT: '1' },
    play: async (pool) => {
      await hold(pool);
      pool.service.signal('SIGTERM');
    },
  },
  'forced by a second SIGINT': {
    play: async (pool) => {
      await hold(pool);
      await stopping(pool, 'SIGINT');
      pool.service.signal('SIGINT');
    },
  },
  'a body that stalls': {
    env: { SHUTDOWN_TIMEOUT: '60' },
    app: `export default { routes(router) { router.post('/read', (request, response, { log }) => {
      request.on('data', () => {}).on('end', () => response.end());
      log.info('reading');
    }); } };`,
    play: async (pool) => {
      (await pool.connect()).write('POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx');
      await pool.service.line('reading');
      pool.service.signal('SIGTERM');
    },
  },
  'lame duck': {
    env: { SHUTDOWN_DELAY: '1' },
    play: async (pool, t) => {
      const held = await hold(pool);
      pool.service.signal('SIGTERM');
      await pool.service.line('Lame duck');
      t.equal((await pool.get()).status, 200);
      await pool.service.line('Service state: STOPPING');
      pool.open('a');
      t.equal(await held.status(), 200);
    },
  },
  'without fail-safe': {
    env: { ENABLE_FAIL_SAFE: 'false' },
    play: async (pool, t) => {
      const held = await hold(pool);
      await stopping(pool);
      pool.open('a');
      t.equal(await held.status(), 200);
    },
  },
  emergency: {
    // A program has no route of ours.
    isOfModules: true,
    env: { ADMIN_TOKEN: TOKEN, SHUTDOWN_DELAY: '60' },
    play: async (pool, t) => {
      const held = await hold(pool);
      const answer = await fetch(`http://127.0.0.1:${pool.port}/admin/emergency-shutdown`, {
        method: 'POST',
        headers: { authorization: `Bearer ${TOKEN}` },
        body: '{"reason":"a drill"}',
      });
      t.equal(answer.status, 200);
      pool.open('a');
      t.equal(await held.status(), 200);
    },
  },
  'an emergency that cannot be latched': {
    env: { ADMIN_TOKEN: TOKEN, AUDIT_LOG: 'off' },
    play: async (pool, t) => {
      mkdirSync(join(pool.service.stateDir, 'emergency.json'));
      const answer = await fetch(`http://127.0.0.1:${pool.service.opsPort}/admin/emergency-shutdown`, {
        method: 'POST',
        headers: { authorization: `Bearer ${TOKEN}` },
      });
      t.match(await answer.json(), { latched: false });
    },
  },
  'the audit log is lost': {
    env: { AUDIT_LOG: 'doors/log.ndjson' },
    play: async (pool) => {
      renameSync(join(pool.dir, 'doors'), join(pool.dir, 'gone'));
      // The log is looked at each second, also when nothing is written.
      await pool.service.line('The audit log is lost');
    },
  },
  'a stop that fails': {
    isOfModules: true,
    app: `export default { stop() { throw new Error('on purpose'); } };`,
    play: async (pool) => pool.service.signal('SIGTERM'),
  },
  'during the start': {
    isOfModules: true,
    starts: false,
    app: `export default { async start({ log, stopping }) {
      log.info('starting slowly');
      await new Promise((resolve) => stopping.addEventListener('abort', resolve));
    } };`,
    play: async (pool) => {
      await pool.service.line('starting slowly');
      pool.service.signal('SIGTERM');
    },
  },
  'with a reload': {
    play: async (pool, t) => {
      const held = await hold(pool);
      await stopping(pool);
      pool.service.signal('SIGHUP');
      await pool.service.line('Reload refused');
      pool.open('a');
      t.equal(await held.status(), 200);
    },
  },
};

for (const [name, stop] of Object.entries(STOPS)) {
  const others: ('worker' | 'program')[] = stop.isOfModules ? ['worker'] : ['worker', 'program'];
  t.test(`${name}: told alike by one process and by a ${others.join(' and a ')}`, async (t) => {
    const [one, ...told] = await Promise.all([
      play(t, stop, 'process'),
      ...others.map((other) => play(t, stop, other)),
    ]);
    for (const [index, other] of told.entries()) {
      const want = others[index] === 'program' ? withoutRoutes(one) : one;
      t.strictSame(other.lines, want.lines, `the log of a ${others[index]}`);
      t.strictSame(other.report, want.report, 'the report');
      t.strictSame(other.records, want.records, 'the audit log');
      t.equal(other.code, want.code, 'the exit code');
    }
    t.ok(
      one.lines.some((line) => line.includes('Initiating graceful shutdown')),
      'and it was a stop',
    );
  });
}

t.test('an audit log that was not closed is told of by one process and by workers', async (t) => {
  for (const workers of [0, 1]) {
    const dir = tempDir(t);
    const env = { AUDIT_LOG: join(dir, 'audit.ndjson') };
    const first = await WorkersService.running(t, { workers, env });
    first.service.signal('SIGKILL');
    await first.service.exited;
    const next = await WorkersService.running(t, { workers, env });
    t.match(next.service.output, 'WARNING: The audit log was not closed by the run before this one');
    next.service.signal('SIGTERM');
    await next.service.exited;
  }
});

/** The routes of a program are its own: the gate in front of it does not know them. */
function withoutRoutes(told: Told): Told {
  return {
    ...told,
    lines: told.lines.filter((line) => !/^WARNING: Where \S+ \S+ was: route \S+$/.test(line)),
    report: { ...told.report, cut: (told.report.cut ?? []).map(({ route: _, ...rest }) => rest) },
  };
}

async function play(t: Test, stop: Stop, by: 'process' | 'worker' | 'program'): Promise<Told> {
  const { env = {}, app } = stop;
  const pool = WorkersService.spawn(t, {
    ...{ workers: by === 'worker' ? 1 : 0, guards: by === 'program', env },
    ...(app === undefined ? {} : { app }),
  });
  if (stop.starts !== false) await pool.service.accepting();
  await stop.play(pool, t);
  const { code } = await pool.service.exited;
  const from = pool.service.lines.findIndex((line) =>
    /Received signal|Emergency|cannot be written/.test(line),
  );
  // What an application logs itself, and stacks, are no words of ours; a worker's lines also say which worker.
  const lines = pool.service.lines
    .slice(from)
    .filter(
      (line) =>
        /^(INFO|WARNING|ERROR|FATAL): /.test(line) &&
        !/holding|Not in the audit log|Refused \d|: Program /.test(line),
    )
    .map((line) =>
      line
        .replaceAll(pool.dir, 'DIR')
        .replace(/ \(worker \d+\)$/, '')
        .replace(/after \d+(\.\d+)?s|json\.\d+/, '…'),
    );
  // The latch is on its way to the disk while the stop goes on, and an application settles in its own process.
  const [latch, others] = [/latch|Application started/i, /^(?!.*(latch|Application started))/i].map((kind) =>
    lines.filter((line) => kind.test(line)),
  );
  const { cut, reason, in_flight_at_lock, completed, aborted, rejected, exit_code } = pool.service.report();
  const named = cut.map(({ id: _, age_ms: __, ...rest }) => rest);
  const records = env.AUDIT_LOG === undefined ? pool.audit() : [];
  return {
    lines: [...(others ?? []), ...(latch ?? [])],
    code,
    report: {
      ...{ reason, in_flight_at_lock, completed, aborted, exit_code, cut: named as [] },
      ...(env.AUDIT_LOG === undefined ? { rejected } : {}),
    },
    records: records
      .filter(({ type }) => type !== 'open')
      .map(
        ({ type, state = '', outcome = '', path = '', count = '' }) =>
          `${type} ${state}${outcome} ${path}${count}`,
      )
      .sort(),
  };
}
