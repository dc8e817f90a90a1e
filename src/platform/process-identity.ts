import { readFileSync } from 'node:fs';
import { hasCode } from '../error.ts';

/**
 * What tells a process from a later one with the same id. The wall clock is no part of it: it can be stepped. Without
 * /proc only the id is known.
 */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks from boot to its start: field 22 of /proc/PID/stat (proc(5)). */
  readonly start_ticks?: number;
  /** Changes at each boot: /proc/sys/kernel/random/boot_id. */
  readonly boot_id?: string;
}

/**
 * `alive`: the very process. `dead`: no process has the id. `recycled`: another process has it now. `unknown`: a
 * process has the id, and nothing tells whether it is the same.
 */
export type Fate = 'alive' | 'dead' | 'recycled' | 'unknown';

/** The identity of the process that has this id now. */
export function identityOf(pid: number = process.pid): ProcessIdentity {
  // starttime is field 22, and the fields begin with the third.
  const ticks = Number(statOf(pid)?.[22 - 3]);
  const boot = bootId();
  return {
    pid,
    ...(Number.isSafeInteger(ticks) ? { start_ticks: ticks } : {}),
    ...(boot === undefined ? {} : { boot_id: boot }),
  };
}

/** Narrows what was read from a file or a socket; undefined when it names no process. */
export function parseIdentity(value: unknown): ProcessIdentity | undefined {
  if (typeof value !== 'object' || value === null || !('pid' in value)) return undefined;
  const { pid, start_ticks, boot_id } = value as Partial<Record<keyof ProcessIdentity, unknown>>;
  if (typeof pid !== 'number' || !Number.isSafeInteger(pid) || pid <= 0) return undefined;
  return {
    pid,
    ...(typeof start_ticks === 'number' ? { start_ticks } : {}),
    ...(typeof boot_id === 'string' ? { boot_id } : {}),
  };
}

/** What has become of a process since its identity was noted, as far as this PID namespace can tell. */
export function fateOf(noted: ProcessIdentity): Fate {
  if (!isAlive(noted.pid)) return 'dead';
  const now = identityOf(noted.pid);
  if (noted.boot_id === undefined || now.boot_id === undefined) return 'unknown';
  if (noted.boot_id !== now.boot_id) return 'recycled';
  if (noted.start_ticks === undefined || now.start_ticks === undefined) return 'unknown';
  return noted.start_ticks === now.start_ticks ? 'alive' : 'recycled';
}

/** A process that has ended and that its parent has not reaped yet (a zombie) is not alive. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return hasCode(error, 'EPERM');
  }
  const state = statOf(pid)?.[0];
  return state !== 'Z' && state !== 'X';
}

/** The fields of /proc/PID/stat from the third, the state, on; undefined when it cannot be read. */
function statOf(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses, field 2, may hold spaces and parentheses.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}

function bootId(): string | undefined {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() || undefined;
  } catch {
    return undefined;
  }
}
