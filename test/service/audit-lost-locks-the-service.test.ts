import { closeSync, mkdirSync, readdirSync, readlinkSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openLog } from '../support/audit.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const MODES = ['batched', 'strict'] as const;

for (const mode of MODES) {
  t.test(`${mode}: a directory that was removed underneath`, async (t) => {
    const audit = join(tempDir(t), 'audit');
    mkdirSync(audit);
    const file = join(audit, 'audit.ndjson');
    const service = await ServiceProcess.running(t, { env: { AUDIT_MODE: mode, AUDIT_LOG: file } });
    // Out of the way first: a file that is gone before its directory is made anew.
    renameSync(audit, `${audit}.gone`);
    rmSync(`${audit}.gone`, { recursive: true });
    (await RawClient.open(service.port)).get('/');
    await service.line('ERROR: The audit log cannot be written: ENOENT');
    t.strictSame(await service.exited, { code: 74, signal: null });
  });
}

t.test('a log that cannot be opened is a start that is refused', async (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'file'), '');
  for (const [file, why] of [
    [join(dir, 'none', 'audit.ndjson'), 'ENOENT'],
    [join(dir, 'file', 'audit.ndjson'), 'ENOTDIR'],
    [dir, 'EISDIR'],
    ['/dev/full', 'ENOSPC'],
  ] as const) {
    const service = ServiceProcess.spawn(t, { env: { AUDIT_LOG: file } });
    t.strictSame(await service.exited, { code: 74, signal: null });
    const fatal = service.lines.filter((line) => line.startsWith('FATAL'));
    t.equal(fatal.length, 1);
    t.match(fatal[0], `AUDIT_LOG: want a log that can be written, got "${file}": ${why}`);
  }
});

t.test(
  'the first failure is final: what comes then goes to the fallback, and nobody is told that it is kept',
  async (t) => {
    const file = join(tempDir(t), 'audit.ndjson');
    const lost: Error[] = [];
    const fallback: string[] = [];
    const log = openLog(file, { lost: (error) => lost.push(error), fallback: (line) => fallback.push(line) });
    log.record('request', { id: 'before' });
    t.equal(await log.kept(), true);
    // The descriptor is taken away underneath.
    const fd = readdirSync('/proc/self/fd').find((name) => linkOf(name) === file);
    closeSync(Number(fd));
    log.record('request', { id: 'lost' });
    t.equal(await log.kept(), false);
    t.match(log.failure, { code: 'EBADF' });
    log.record('request', { id: 'late' });
    t.equal(await log.kept(), false);
    log.reopen();
    t.equal(lost.length, 1, 'told once');
    t.match(fallback, [/"id":"lost"/, /"id":"late"/]);
  },
);

function linkOf(name: string): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${name}`);
  } catch {
    return undefined;
  }
}
