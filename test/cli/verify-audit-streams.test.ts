import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { Batch } from '../../src/audit/batch.ts';
import { NOTHING } from '../../src/audit/seal.ts';
import { MAIN, tempDir } from '../support/service-process.ts';

const TELL_MEMORY =
  'data:text/javascript,process.on("exit",()=>console.error(process.resourceUsage().maxRSS))';
const MEGABYTE = 1024 * 1024;

/** A log of about so many bytes, in writes of 500 records. */
function generate(file: string, most: number): void {
  const fd = openSync(file, 'w');
  const time = '2026-01-01T00:00:00.000Z';
  const batch = new Batch();
  let previous = NOTHING;
  for (let seq = 1, written = 0; written < most; seq += 1) {
    const records = Array.from(
      { length: 500 },
      (_, index) => `{"type":"request","time":"${time}","id":"${seq}-${index}","path":"/${'x'.repeat(150)}"}`,
    );
    if (seq === 1) records[0] = `{"type":"open","time":"${time}","reason":"start"}`;
    for (const record of records) batch.add(record);
    const { bytes, hash } = batch.seal({ chain: 'c-1', seq, previous, final: false, time }, undefined);
    previous = hash;
    written += writeSync(fd, bytes);
    batch.clear();
  }
  closeSync(fd);
}

/** Verifies in a process of its own. */
async function verified(file: string): Promise<{ code: number; out: string; mostMegabytes: number }> {
  const child = spawn(
    process.execPath,
    [...['--max-old-space-size=64', '--import', TELL_MEMORY, MAIN, 'verify-audit', '--json', file]],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const [out, told, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ]);
  return { code, out, mostMegabytes: Number(told.trim()) / 1024 };
}

t.test('a large log takes no more memory than a small one', async (t) => {
  const dir = tempDir(t);
  generate(join(dir, 'small'), MEGABYTE);
  generate(join(dir, 'large'), 150 * MEGABYTE);
  const small = await verified(join(dir, 'small'));
  const large = await verified(join(dir, 'large'));
  t.equal(large.code, 0);
  t.ok(JSON.parse(large.out).bytes >= 150 * MEGABYTE);
  const more = large.mostMegabytes - small.mostMegabytes;
  t.ok(more < 40, `${more.toFixed(1)} MB more for 149 MB more of log`);
});
