import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { hasCode } from '../error.ts';

/** What a PID file says. Whether that process is the service is known elsewhere: the file holds an id and no more. */
export type PidFile =
  | { readonly kind: 'none' }
  | { readonly kind: 'pid'; readonly pid: number }
  | { readonly kind: 'unreadable'; readonly content: string };

/** @throws the system's error when there is a file that cannot be read */
export function readPidFile(file: string): PidFile {
  let content: string;
  try {
    content = readFileSync(file, 'utf8').trim();
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return { kind: 'none' };
    throw error;
  }
  const pid = /^\d+$/.test(content) ? Number(content) : 0;
  return pid > 0 && Number.isSafeInteger(pid)
    ? { kind: 'pid', pid }
    : { kind: 'unreadable', content: content.slice(0, 40) };
}

/** @throws the system's error when the file cannot be written */
export function writePidFile(file: string): void {
  writeFileSync(file, `${process.pid}\n`, { mode: 0o644 });
}

/** Removes the file if it still names this process. Never rejects; a disk that hangs delays it: bound the wait. */
export async function removePidFile(file: string): Promise<void> {
  try {
    if (namesUs(await readFile(file, 'utf8'))) await rm(file);
  } catch {
    // It is gone or belongs to another process.
  }
}

/** As `removePidFile`, for a process that ends in this turn of the loop. */
export function removePidFileNow(file: string): void {
  try {
    if (namesUs(readFileSync(file, 'utf8'))) rmSync(file);
  } catch {
    // It is gone or belongs to another process.
  }
}

function namesUs(content: string): boolean {
  return content.trim() === String(process.pid);
}
