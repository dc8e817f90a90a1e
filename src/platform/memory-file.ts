import { ftruncateSync, openSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';

/** Memory that looks like a file: a write to it waits for no disk. */
const MEMORY_DIR = '/dev/shm';

let files = 0;

/**
 * A file of zeros that several processes hold open. It has no name: nothing is left of it when they are gone.
 * @param elsewhere a directory for systems without one in memory
 * @throws the system's error
 */
export function openMemoryFile(bytes: number, elsewhere: string): number {
  files += 1;
  const name = `master-agent-${process.pid}-${files}`;
  let path = join(MEMORY_DIR, name);
  let fd: number;
  try {
    fd = openSync(path, 'wx+', 0o600);
  } catch {
    path = join(elsewhere, name);
    fd = openSync(path, 'wx+', 0o600);
  }
  unlinkSync(path);
  ftruncateSync(fd, bytes);
  return fd;
}
