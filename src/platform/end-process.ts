import { createRequire } from 'node:module';
import { setTimeout as delay } from 'node:timers/promises';

/** How long file operations under way may take: a disk may not answer. */
const POOL_MS = 250;
/** How often outstanding work is looked at: Node does not tell when the work of others ends. */
const LOOK_MS = 10;

/**
 * Ends this process with `code`, after the last log line. `process.exit` joins the threads of libuv's pool and so never
 * returns when one of them waits for a disk, or a name server, that does not answer. Work that is still under way after
 * a moment is left behind by ending the process without its threads. Does not return.
 */
export async function endProcess(code: number): Promise<void> {
  const endMs = performance.now() + POOL_MS;
  while (isPoolBusy() && performance.now() < endMs) await delay(LOOK_MS);
  if (isPoolBusy()) endAtOnce(code);
  process.exit(code);
}

/** Whether the pool works on files or names. Whatever else it does, such as hashing, ends by itself. */
function isPoolBusy(): boolean {
  return process.getActiveResourcesInfo().some((name) => /^FSReq|^Get(Addr|Name)InfoReq/i.test(name));
}

/** Keeps the exit code where the system lets it: by _exit(2), else by another program in our place, else not. */
function endAtOnce(code: number): void {
  try {
    // Not import(), which reads through the pool.
    const koffi: typeof import('koffi').default = createRequire(import.meta.url)('koffi');
    koffi.load(null).func('void _exit(int)')(code);
  } catch {
    // koffi is an optional dependency.
  }
  try {
    // Node >= 22.15.
    if ('execve' in process && typeof process.execve === 'function')
      process.execve(process.execPath, [process.execPath, '-e', `process.exit(${code})`], {});
  } catch {
    // It is missing in a worker thread, for one.
  }
  process.kill(process.pid, 'SIGKILL');
}
