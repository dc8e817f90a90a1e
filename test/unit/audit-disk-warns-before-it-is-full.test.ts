import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { DiskWatch } from '../../src/audit/disk-space.ts';
import { openLog } from '../support/audit.ts';
import { SmallDisk } from '../support/small-disk.ts';

const KILOBYTE = 1024;

t.test('a disk that is nearly full is told when the log is opened, one with room is not', async (t) => {
  const disk = SmallDisk.mount(t, 1024);
  if (disk === undefined) return;
  const warnings: string[] = [];
  const file = join(disk.dir, 'audit.ndjson');
  const first = openLog(file, { warn: (message) => warnings.push(message) });
  t.match(first.disk, { totalBytes: 1024 * KILOBYTE });
  t.ok(Number(first.disk?.freeBytes) > 900 * KILOBYTE);
  await first.close();
  t.strictSame(warnings, []);
  writeFileSync(join(disk.dir, 'filler'), Buffer.alloc(950 * KILOBYTE));
  const second = openLog(file, { warn: (message) => warnings.push(message) });
  await second.close();
  t.equal(warnings.length, 1);
  t.match(warnings[0], `The disk of the audit log is nearly full: 0 of 1 MB are free in ${disk.dir}`);
});

t.test('it is told once, and again when half of what was left is gone', async (t) => {
  const disk = SmallDisk.mount(t, 1024);
  if (disk === undefined) return;
  let told = 0;
  const watch = new DiskWatch(join(disk.dir, 'audit.ndjson'), () => {
    told += 1;
  });
  /** Fills the disk up to so much, and waits for a look at it. */
  const look = async (usedKilobytes: number): Promise<void> => {
    writeFileSync(join(disk.dir, 'filler'), Buffer.alloc(usedKilobytes * KILOBYTE));
    watch.look();
    const room = 1024 - usedKilobytes;
    while (Math.abs(Number(watch.space?.freeBytes) - room * KILOBYTE) > 8 * KILOBYTE)
      await new Promise(setImmediate);
  };
  t.equal(told, 0);
  for (const [used, want] of [
    [500, 0],
    [940, 1],
    [960, 1],
    [990, 2],
    [500, 2],
    [940, 3],
  ] as const) {
    await look(used);
    t.equal(told, want, `${used} KB used`);
  }
});
