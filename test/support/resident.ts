import { readFileSync } from 'node:fs';

/** The memory that a process has in use (its resident set), in bytes. @throws Error when there is none */
export function residentBytes(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1];
  return Number(kilobytes) * 1024;
}
