import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** The last seal of a log: with it, kept somewhere else, a cut end can be seen. */
export interface Head {
  readonly chain: string;
  readonly seq: number;
  readonly hash: string;
}

function headFile(file: string): string {
  return `${file}.head`;
}

/** Keeps the head beside the log: when a run begins and ends, and when one of its files ends. @throws the system's error */
export function keepHead(file: string, head: Head): void {
  const draft = `${headFile(file)}.${process.pid}`;
  const fd = openSync(draft, 'w', 0o640);
  try {
    writeFileSync(fd, `${JSON.stringify(head)}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(draft, headFile(file));
  syncDirectoryOf(file);
}

/** The name of a new file is only there after a crash when its directory is on disk too. @throws the system's error */
export function syncDirectoryOf(file: string): void {
  const directory = openSync(dirname(file), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/** The hash of the head that was kept beside the log, or undefined when there is none that can be read. */
export function readHead(file: string): string | undefined {
  try {
    const { hash } = JSON.parse(readFileSync(headFile(file), 'utf8'));
    return typeof hash === 'string' ? hash : undefined;
  } catch {
    return undefined;
  }
}
