import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';

/** The last seal of a log: with it, kept somewhere else, a cut end can be seen. */
export interface Head {
  readonly chain: string;
  readonly seq: number;
  readonly hash: string;
}

function headFile(file: string): string {
  return `${file}.head`;
}

/** Keeps the head beside the log at the end of a run. @throws the system's error */
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
