import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, sep } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const SRC = join(ROOT, 'src');
const HOUR_MS = 3_600_000;

/** Loaded before the service: from SIGWINCH on the wall clock of its process is elsewhere. */
const JUMP = `
const { now } = Date;
const Real = Date;
let shiftMs = 0;
globalThis.Date = class extends Real {
  constructor(...args) { super(...(args.length === 0 ? [now() + shiftMs] : args)); }
  static now() { return now() + shiftMs; }
};
process.on('SIGWINCH', () => {
  shiftMs = Number(process.env.JUMP_MS);
  process.stdout.write('The clock has jumped\\n');
});
`;

for (const [name, ms] of [
  ['forward', 5 * HOUR_MS],
  ['back', -5 * HOUR_MS],
] as const) {
  t.test(`the wall clock jumps ${name} by hours: deadline and rate limit stay what they are`, async (t) => {
    const preload = join(tempDir(t), 'jump.mjs');
    writeFileSync(preload, JUMP);
    const service = await ServiceProcess.running(t, {
      nodeArgs: ['--import', pathToFileURL(preload).href],
      env: { JUMP_MS: String(ms), SHUTDOWN_TIMEOUT: '3600', ADMIN_TOKEN: 'correct-horse-battery' },
    });
    const attempt = async (): Promise<number> => {
      const client = await RawClient.open(service.port);
      const headers = { Authorization: 'Bearer wrong-horse-battery', 'Content-Length': '0' };
      const { status } = await client.request('POST', '/admin/emergency-shutdown', headers).response();
      client.destroy();
      return status;
    };
    for (let count = 0; count < 5; count += 1) t.equal(await attempt(), 403);
    t.equal(await attempt(), 429);
    const held = (await RawClient.open(service.port)).get('/hold/a');
    await service.line('holding a');

    service.signal('SIGWINCH');
    await service.line('The clock has jumped');
    t.equal(await attempt(), 429, 'a minute is a minute');
    await service.stop();
    service.signal('SIGWINCH');
    const { shutdown } = await service.statusWhen(
      ({ shutdown }) => shutdown !== undefined && shutdown !== null,
    );
    const left = shutdown?.remaining_seconds ?? 0;
    t.ok(left > 3_000 && left <= 3_600, `${left} s remain`);
    service.release('a');
    t.equal((await held.response()).status, 200, 'nothing was cut');
    t.strictSame(await service.exited, { code: 0, signal: null });
    const { duration_seconds } = service.report();
    t.ok(duration_seconds >= 0 && duration_seconds < 3_000, `it took ${duration_seconds} s`);
  });
}

/** The only places that ask for the wall clock, and what for: timestamps that people or other processes read. */
const WALL_CLOCK: Readonly<Record<string, string>> = {
  'server/request-record.ts': 'the time of a record',
  'control/facts.ts': 'the deadline as a time, for people',
  'ops/history.ts': 'when a second of the history was, for people',
  'cli/reload.ts': 'compared with the outcome that another process has written',
};

t.test('the wall clock is asked for timestamps alone', async (t) => {
  const asking = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
    .map((name) => name.split(sep).join('/'))
    .filter((name) => name.endsWith('.ts') && /Date\.now\(/.test(readFileSync(join(SRC, name), 'utf8')))
    .sort();
  t.strictSame(asking, Object.keys(WALL_CLOCK).sort());
});
