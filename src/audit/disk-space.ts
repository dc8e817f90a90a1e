import { type StatsFs, statfs, statfsSync } from 'node:fs';
import { dirname } from 'node:path';

/** What is left of a disk. */
export interface DiskSpace {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** Less than this share of the disk, and less than so many bytes, is little. */
const LITTLE = { share: 0.1, bytes: 1024 ** 3 };
const LOOK_MS = 10_000;

/** Watches the disk that a file is on, and warns before it is full: once, and again whenever half of it is gone. */
export class DiskWatch {
  readonly #directory: string;
  readonly #warn: (message: string) => void;
  #space: DiskSpace | undefined;
  readonly #nowMs: () => number;
  #lookedMs: number;
  #warnedAtBytes = Number.POSITIVE_INFINITY;

  /** @param nowMs a clock that never jumps */
  constructor(file: string, warn: (message: string) => void, nowMs = () => performance.now()) {
    this.#directory = dirname(file);
    this.#warn = warn;
    this.#nowMs = nowMs;
    this.#lookedMs = nowMs();
    this.#saw(statfsSync(this.#directory));
  }

  /** Undefined when the disk does not tell. */
  get space(): DiskSpace | undefined {
    return this.#space;
  }

  /** Looks at most every ten seconds, and waits for nothing: a disk that does not answer holds nobody up. */
  look(): void {
    if (this.#nowMs() - this.#lookedMs < LOOK_MS) return;
    this.#lookedMs = this.#nowMs();
    statfs(this.#directory, (error, stats) => {
      if (error === null) this.#saw(stats);
    });
  }

  #saw({ bavail, blocks, bsize }: StatsFs): void {
    const space = { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
    this.#space = blocks === 0 ? undefined : space;
    if (this.#space === undefined) return;
    const { freeBytes, totalBytes } = space;
    if (freeBytes >= Math.min(LITTLE.bytes, totalBytes * LITTLE.share)) {
      this.#warnedAtBytes = Number.POSITIVE_INFINITY;
    } else if (freeBytes < this.#warnedAtBytes / 2) {
      this.#warnedAtBytes = freeBytes;
      this.#warn(
        `The disk of the audit log is nearly full: ${megabytes(freeBytes)} of ${megabytes(totalBytes)} MB are free ` +
          `in ${this.#directory}. The service locks itself when it cannot write`,
      );
    }
  }
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}
