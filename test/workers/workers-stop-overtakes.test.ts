import t from 'tap';
import { gone, WorkersService } from '../support/workers-service.ts';

/** Starts at once the first time; later ones say so and wait for ever. */
const SLOW_LATER = `import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
const marker = join(process.env.DOORS, 'started');
export default {
  async start({ log }) {
    if (!existsSync(marker)) return;
    log.info('slow ' + process.pid);
    await new Promise(() => setInterval(() => {}, 1000));
  },
  routes(router) {
    router.get('/', (_request, response) => response.end('works'));
  },
};\n`;

function slowPids(lines: readonly string[]): number[] {
  return lines.flatMap((line) => /slow (\d+)/.exec(line)?.[1] ?? []).map(Number);
}

t.test('a stop during the start wins, and leaves nobody behind', async (t) => {
  const pool = WorkersService.spawn(t, { app: SLOW_LATER });
  const { service } = pool;
  pool.open('started');
  const pids = await service.until(() => {
    const found = slowPids(service.lines);
    return found.length === 2 ? found : undefined;
  }, 'both start');
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.notMatch(service.output, 'Service state: RUNNING');
  t.notMatch(service.output, 'trying again');
  t.match(service.output, 'INFO: Service state: STOPPED - All requests completed gracefully');
  for (const pid of pids) await gone(pid);
});

t.test('a stop during a reload wins, and leaves nobody behind', async (t) => {
  const pool = await WorkersService.running(t, { app: SLOW_LATER });
  const { service } = pool;
  const old = await pool.pids();
  pool.open('started');
  service.signal('SIGHUP');
  const pids = await service.until(() => {
    const found = slowPids(service.lines);
    return found.length === 2 ? found : undefined;
  }, 'the new ones start');
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.notMatch(service.output, 'Reloaded');
  t.notMatch(service.output, 'trying again');
  t.match(service.report(), { reason: 'SIGTERM', exit_code: 0 });
  for (const pid of [...old, ...pids]) await gone(pid);
});

t.test('a reload while stopping is refused', async (t) => {
  const pool = await WorkersService.running(t);
  const { service } = pool;
  const held = (await pool.connect()).get('/hold/a');
  await service.line('holding a');
  await service.stop();
  service.signal('SIGHUP');
  await service.line('Reload refused, generation 1 goes on serving: the service is stopping');
  pool.open('a');
  t.equal((await held.response()).status, 200);
  t.strictSame(await service.exited, { code: 0, signal: null });
});
