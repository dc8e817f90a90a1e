import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';

/** A disk of its own that is soon full: a small tmpfs, mounted for one test. */
export class SmallDisk {
  readonly dir: string;

  private constructor(dir: string) {
    this.dir = dir;
  }

  /** @throws Error where none can be mounted: that takes root. */
  static mount(t: Test, kilobytes = 512): SmallDisk {
    const dir = mkdtempSync(join(tmpdir(), 'master-agent-disk-'));
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${kilobytes}k`, 'tmpfs', dir], {
      encoding: 'utf8',
    });
    t.teardown(() => {
      if (status === 0) spawnSync('umount', [dir]);
      rmSync(dir, { recursive: true, force: true });
    });
    if (status === 0) return new SmallDisk(dir);
    throw new Error(`no tmpfs can be mounted here, which takes root: ${stderr?.trim() ?? 'no mount'}`);
  }

  /** From now on nothing can be written. @throws Error when it cannot be so */
  makeReadOnly(): void {
    const { status, stderr } = spawnSync('mount', ['-o', 'remount,ro', this.dir], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`${this.dir} stays writable: ${stderr}`);
  }

  /** Takes all the room that is left. */
  fill(): void {
    const fd = openSync(join(this.dir, 'filler'), 'a');
    try {
      for (const size of [4096, 1]) {
        const bytes = Buffer.alloc(size, 'x');
        for (;;) writeSync(fd, bytes);
      }
    } catch {
      // Full.
    } finally {
      closeSync(fd);
    }
  }

  free(): void {
    rmSync(join(this.dir, 'filler'), { force: true });
  }
}
