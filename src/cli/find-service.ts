import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { readRun } from '../lifecycle/last-shutdown.ts';
import { readPidFile } from '../platform/pid-file.ts';
import { type Fate, fateOf, isAlive } from '../platform/process-identity.ts';
import { type Holder, holderOf } from '../platform/state-lock.ts';
import { fetchStatus, opsServer } from './operator.ts';

/**
 * The service of this configuration. `none`: it certainly does not run, and `staleFile` is a PID file it has left.
 * `unknown`: nothing tells whether it runs, so a command must change nothing and fail.
 */
export type Found =
  | { readonly kind: 'running'; readonly pid: number }
  | { readonly kind: 'none'; readonly why: string; readonly staleFile?: string }
  | { readonly kind: 'unknown'; readonly why: string };

/** Where the PID file is. `manage-service.sh` sets PID_FILE to the same default. */
export function pidFileOf({ pidFile, stateDir }: Config): string {
  return pidFile ?? join(stateDir, 'master-agent.pid');
}

/**
 * Finds the running service. A process that locks STATE_DIR answers for itself. When none answers (a blocked event
 * loop, or a version without the lock), the PID file and `running.json` name it, and the ops server confirms it where
 * those two cannot tell it from another process.
 * @throws Error that names PID_FILE when it cannot be read
 */
export async function findService(config: Config): Promise<Found> {
  const { stateDir } = config;
  const file = pidFileOf(config);
  let named: ReturnType<typeof readPidFile>;
  try {
    named = readPidFile(file);
  } catch (error) {
    throw new Error(`PID_FILE: want a file that can be read, got "${file}": ${messageOf(error)}`);
  }
  const holder = await holderOf(stateDir).catch((): Holder => ({ kind: 'silent' }));
  if (holder.kind === 'known') {
    const { process, host } = holder;
    const fate = fateOf(process);
    if (fate === 'alive' || (fate === 'unknown' && host === hostname()))
      return { kind: 'running', pid: process.pid };
    const why = `process ${process.pid} on ${host} holds ${stateDir}, and cannot be signalled from here`;
    return { kind: 'unknown', why };
  }
  const pids = new Set([named.kind === 'pid' ? named.pid : [], readRun(stateDir)?.pid ?? []].flat());
  const alive = [...pids].find((pid) => fateIn(stateDir, pid) === 'alive');
  if (alive !== undefined) return { kind: 'running', pid: alive };
  const unclear = [...pids].filter((pid) => fateIn(stateDir, pid) === 'unknown');
  const [first] = unclear;
  if (first !== undefined) {
    const url = opsServer(config);
    const status = url === undefined ? undefined : await fetchStatus(url).catch(() => undefined);
    if (status !== undefined && unclear.includes(status.pid)) return { kind: 'running', pid: status.pid };
    const why = `process ${first} is alive, and nothing in ${stateDir} or at the ops server tells whether it is the service`;
    return { kind: 'unknown', why };
  }
  if (holder.kind === 'silent') {
    return { kind: 'unknown', why: `${stateDir} is held by a process that does not answer` };
  }
  switch (named.kind) {
    case 'none':
      return {
        kind: 'none',
        why: config.pidFile === undefined ? `no service runs in ${stateDir}` : `there is no PID file ${file}`,
      };
    case 'unreadable': {
      const why = `${file} holds no process id, but ${JSON.stringify(named.content)}`;
      return { kind: 'none', why, staleFile: file };
    }
    case 'pid': {
      const why = isAlive(named.pid)
        ? `${file} was left behind: process ${named.pid} is something else now, and was not touched`
        : `${file} was left by process ${named.pid}, which is dead`;
      return { kind: 'none', why, staleFile: file };
    }
  }
}

/** What has become of the process that ran this state directory's service when its PID file was written. */
export function fateIn(stateDir: string, pid: number): Fate {
  const run = readRun(stateDir);
  if (run?.pid === pid) return fateOf(run);
  return isAlive(pid) ? 'unknown' : 'dead';
}
