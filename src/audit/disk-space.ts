import { type StatsFs, statfs, statfsSync } from 'node:fs';
import { dirname } from 'node:path';

/** What is left of a disk. */
export interface DiskSpace {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** Free space counts as low below both this share of the disk and this many bytes. */
const LITTLE = { share: 0.1, bytes: 1024 ** 3 };

/** Watches the disk that a file is on, and warns before it is full: once, and again whenever half of it is gone. */
export class DiskWatch {
  readonly #directory: string;
  readonly #warn: (message: string) => void;
  #space: DiskSpace | undefined;
  #warnedAtBytes = Number.POSITIVE_INFINITY;

  constructor(file: string, warn: (message: string) => void) {
    this.#directory = dirname(file);
    this.#warn = warn;
    this.#saw(statfsSync(this.#directory));
  }

  /** At the last look; undefined when the disk does not tell. */
  get space(): DiskSpace | undefined {
    return this.#space;
  }

  /** Does not wait: a disk that hangs must not delay the caller. */
  look(): void {
    statfs(this.#directory, (error, stats) => {
      if (error === null) this.#saw(stats);
    });
  }

  #saw({ bavail, blocks, bsize }: StatsFs): void {
    const [freeBytes, totalBytes] = [bavail * bsize, blocks * bsize];
    this.#space = blocks === 0 ? undefined : { freeBytes, totalBytes };
    if (freeBytes >= Math.min(LITTLE.bytes, totalBytes * LITTLE.share)) {
      this.#warnedAtBytes = Number.POSITIVE_INFINITY;
    } else if (freeBytes < this.#warnedAtBytes / 2) {
      this.#warnedAtBytes = freeBytes;
      const [free, total] = [freeBytes, totalBytes].map((bytes) => (bytes / 1e6).toFixed(0));
      this.#warn(
        `The disk of the audit log is nearly full: ${free} of ${total} MB are free in ${this.#directory}. ` +
          'The service locks itself when it cannot write',
      );
    }
  }
}
