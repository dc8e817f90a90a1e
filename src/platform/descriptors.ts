import { readFileSync } from 'node:fs';

/** Kept for what is no client: files of the audit log and the state, the ops server, the application's own. */
const RESERVED = 64;

/**
 * As many connections as this process has descriptors for. When they are used up libuv closes whatever comes without
 * a word to anybody, and no file can be opened; so it does not come to that.
 */
export function mostConnections(): number {
  let limits: string;
  try {
    limits = readFileSync('/proc/self/limits', 'latin1');
  } catch {
    return Number.POSITIVE_INFINITY;
  }
  const soft = Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
  return Math.max(1, soft - RESERVED);
}
