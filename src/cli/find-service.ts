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
 * The service of this configuration. `none`: it does not run, for sure, and `staleFile` is a PID file it has left.
 * `unknown`: nothing tells whether it runs; a command must then change nothing and fail.
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
 * Finds the running service. Who locks STATE_DIR comes first, because a process answers for itself there. Without an
 * answer, because its event loop is blocked or its version knows no lock, the PID file and `running.json` name it; what
 * they cannot tell apart, the ops server does.
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
  const run = readRun(stateDir);
  const pids = new Set([
    ...(named.kind === 'pid' ? [named.pid] : []),
    ...(run === undefined ? [] : [run.pid]),
  ]);
  for (const pid of pids) if (fateIn(stateDir, pid) === 'alive') return { kind: 'running', pid };
  for (const pid of pids) {
    if (fateIn(stateDir, pid) !== 'unknown') continue;
    if ((await servedBy(config)) === pid) return { kind: 'running', pid };
    const why = `process ${pid} is alive, and nothing in ${stateDir} or at the ops server tells whether it is the service`;
    return { kind: 'unknown', why };
  }
  if (holder.kind === 'silent') {
    return { kind: 'unknown', why: `${stateDir} is held by a process that does not answer` };
  }
  switch (named.kind) {
    case 'none':
      return { kind: 'none', why: `there is no PID file ${file}` };
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

/** What has become of a process that was the service of a state directory when its PID file was written. */
export function fateIn(stateDir: string, pid: number): Fate {
  const run = readRun(stateDir);
  if (run?.pid === pid) return fateOf(run);
  return isAlive(pid) ? 'unknown' : 'dead';
}

/** The process that answers at the ops server; undefined when none does. */
async function servedBy(config: Config): Promise<number | undefined> {
  const url = opsServer(config);
  if (url === undefined) return undefined;
  return fetchStatus(url).then(
    ({ pid }) => pid,
    () => undefined,
  );
}
