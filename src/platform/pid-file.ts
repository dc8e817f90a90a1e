import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { hasCode } from '../error.ts';

/**
 * Whose process a PID file names. `ours`: it is alive, and was when the file was written. `dead`: there is no such
 * process. `recycled`: there is, but it was started after the file was written, so it is something else.
 */
export type PidFileOwner =
  | { readonly kind: 'ours'; readonly pid: number }
  | { readonly kind: 'dead' | 'recycled'; readonly pid: number }
  | { readonly kind: 'none' }
  | { readonly kind: 'unreadable'; readonly content: string };

/** Clock ticks and the file system's time stamps are coarse: what is this near counts as the same moment. */
const SLACK_MS = 2_000;

/** @throws the system's error when there is a file that cannot be read */
export function readPidFile(file: string): PidFileOwner {
  let content: string;
  let writtenMs: number;
  try {
    content = readFileSync(file, 'utf8').trim();
    writtenMs = statSync(file).mtimeMs;
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return { kind: 'none' };
    throw error;
  }
  const pid = /^\d+$/.test(content) ? Number(content) : 0;
  if (pid <= 0) return { kind: 'unreadable', content: content.slice(0, 40) };
  const kind = whatBecameOf(pid, writtenMs);
  return kind === 'ours' ? { kind, pid } : { kind, pid };
}

/** Whether the process that had this id at `thenMs` (wall clock) still has it. */
export function whatBecameOf(pid: number, thenMs: number): 'ours' | 'dead' | 'recycled' {
  if (!isAlive(pid)) return 'dead';
  const startedMs = startOf(pid);
  return startedMs !== undefined && startedMs > thenMs + SLACK_MS ? 'recycled' : 'ours';
}

/** @throws the system's error when the file cannot be written */
export function writePidFile(file: string): void {
  writeFileSync(file, `${process.pid}\n`, { mode: 0o644 });
}

/** Removes the file if it still names this process. */
export function removePidFile(file: string): void {
  try {
    if (readFileSync(file, 'utf8').trim() === String(process.pid)) rmSync(file);
  } catch {
    // It is gone, or somebody else's: either way not ours to remove.
  }
}

/** A process that has ended and that its parent has not collected yet (a zombie) is not alive. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return hasCode(error, 'EPERM');
  }
  const state = statOf(pid)?.[0];
  return state !== 'Z' && state !== 'X';
}

/** proc(5)'s stat of a process, from field 3 (its state) on; undefined where there is none to be read. */
function statOf(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses, field 2, may hold spaces and parentheses.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}

/** Wall-clock milliseconds of a process's start, from proc(5); undefined where there is no /proc. */
function startOf(pid: number): number | undefined {
  try {
    const bootSeconds = Number(/^btime (\d+)$/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1]);
    // starttime is field 22, in ticks of 10 ms.
    const ticks = Number(statOf(pid)?.[22 - 3]);
    return Number.isFinite(ticks) ? (bootSeconds + ticks / 100) * 1000 : undefined;
  } catch {
    return undefined;
  }
}
