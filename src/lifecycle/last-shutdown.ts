import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError } from '../config/settings.ts';
import { hasCode, messageOf } from '../error.ts';
import { ExitCode, StartError } from '../exit-code.ts';
import { replaceFile } from '../platform/atomic-file.ts';
import { identityOf, type ProcessIdentity, parseIdentity } from '../platform/process-identity.ts';
import { lockStateDir, type Release } from '../platform/state-lock.ts';

/** A request that a stop has cut. */
export interface CutRequest {
  readonly id: string;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly age_ms: number;
  /** What it was doing: receiving, working, sending, upgraded. */
  readonly phase: string;
  /** Why it was not waited for any more, in words that follow "because". */
  readonly reason: string;
  /** The pattern of its route, where the service knows it. */
  readonly route?: string;
  /** The last of the holds that its handler has entered by name, and not left. */
  readonly hold?: string;
  /** With DRAIN_TRACE: the calls that led to its handler's last wait, the innermost first. */
  readonly waits_at?: readonly string[];
}

/** Work other than a request, which the application had entered by name, that a stop has cut. */
export interface CutHold {
  readonly name: string;
  readonly age_ms: number;
  /** The id of the request whose handler has entered it; null for one outside of a request. */
  readonly request: string | null;
  /** Why it was not waited for any more, in words that follow "because". */
  readonly reason: string;
}

/** How a stop went: the content of `STATE_DIR/last-shutdown.json`. */
export interface ShutdownReport {
  readonly unclean: false;
  readonly pid: number;
  readonly version: string;
  readonly reason: string;
  /** ISO 8601. */
  readonly started_at: string;
  readonly stopped_at: string;
  /** From the order to the end. */
  readonly duration_seconds: number;
  readonly in_flight_at_lock: number;
  /** Of those in flight: answered whole, left by their clients, and closed at the lock because their routes say so. */
  readonly completed: number;
  readonly aborted: number;
  readonly closed: number;
  readonly cut: readonly CutRequest[];
  readonly cut_holds: readonly CutHold[];
  /** Requests answered with 503 since the lock. */
  readonly rejected: number;
  readonly exit_code: ExitCode;
}

/** A run that ended without a report: it was killed, or the machine went down. */
export interface UncleanEnd {
  readonly unclean: true;
  readonly pid: number;
  readonly started_at: string;
}

export type LastShutdown = ShutdownReport | UncleanEnd;

/** The run under way, or one that was killed: the content of `STATE_DIR/running.json`. */
export interface Run extends ProcessIdentity {
  readonly started_at: string;
  /** URL of the ops server; undefined until it listens, and when it is off. */
  readonly operator_door?: string;
}

/**
 * Metrics die with their process, so the end of each stop is kept in a file for the next start to show. A run under
 * way has a file too: the start that finds one knows that the run before it was killed. The record also holds the lock
 * of STATE_DIR, because only one service may write these files.
 */
export class ShutdownRecord {
  /** How the run before this one ended; undefined when there was none. */
  readonly last: LastShutdown | undefined;
  readonly #report: string;
  readonly #running: string;
  readonly #run: Run = { ...identityOf(), started_at: new Date().toISOString() };
  readonly #unlock: Release;

  private constructor(stateDir: string, unlock: Release) {
    this.#report = reportFile(stateDir);
    this.#running = runningFile(stateDir);
    this.#unlock = unlock;
    this.last = readUnclean(this.#running) ?? readReport(this.#report);
  }

  /**
   * Locks the directory and notes that a run is under way.
   * @throws ConfigError when another service holds the directory or it cannot be used; StartError 74 when it can be
   * used as soon as there is room again
   */
  static async open(stateDir: string): Promise<ShutdownRecord> {
    let unlock: Release | undefined;
    try {
      unlock = await lockStateDir(stateDir);
      const record = new ShutdownRecord(stateDir, unlock);
      await record.#note(record.#run);
      return record;
    } catch (error) {
      await unlock?.();
      if (error instanceof ConfigError) throw error;
      const line = `STATE_DIR: want a directory that can be written, got "${stateDir}": ${messageOf(error)}`;
      if (hasCode(error, 'ENOSPC', 'EDQUOT', 'EIO'))
        throw new StartError(line, ExitCode.AuditLost, { cause: error });
      throw new ConfigError([line], { cause: error });
    }
  }

  /** Notes where the ops server is, for the commands that look for it. @throws the system's error */
  announce(opsServer: string): Promise<void> {
    return this.#note({ ...this.#run, operator_door: opsServer });
  }

  /** The run is over. On disk when it resolves; bound the wait. @throws the system's error */
  async close(report: ShutdownReport): Promise<void> {
    try {
      await replaceFile(this.#report, textOf(report));
      await rm(this.#running, { force: true });
    } finally {
      await this.#unlock();
    }
  }

  /** The run never began: it leaves no report, and an unclean end before it stays to be told. Bound the wait. */
  async abandon(): Promise<void> {
    try {
      if (this.last?.unclean) await replaceFile(this.#running, textOf(this.last));
      else await rm(this.#running, { force: true });
    } catch {
      // On a full disk our own note stays. It says that there was an unclean end, too.
    } finally {
      await this.#unlock();
    }
  }

  #note(run: Run): Promise<void> {
    return replaceFile(this.#running, textOf({ unclean: true, ...run }));
  }
}

/** The run that is under way or was killed; undefined when there is none that can be read. */
export function readRun(stateDir: string): Run | undefined {
  const value = readJsonFile(runningFile(stateDir));
  const identity = parseIdentity(value);
  if (identity === undefined || !isRecord(value)) return undefined;
  const { started_at, operator_door } = value;
  return {
    ...identity,
    started_at: typeof started_at === 'string' ? started_at : '',
    ...(typeof operator_door === 'string' ? { operator_door } : {}),
  };
}

export function reportFile(stateDir: string): string {
  return join(stateDir, 'last-shutdown.json');
}

function runningFile(stateDir: string): string {
  return join(stateDir, 'running.json');
}

/** The report of the last stop, or undefined when there is none that can be read. */
export function readReport(file: string): ShutdownReport | undefined {
  const value = readJsonFile(file);
  if (!isRecord(value) || value.unclean !== false) return undefined;
  // An older version does not tell of these.
  return { closed: 0, cut_holds: [], ...value } as unknown as ShutdownReport;
}

/** What `/status` tells of it. One torn by a crash tells that there was a run, and no more. */
function readUnclean(file: string): UncleanEnd | undefined {
  const value = readJsonFile(file);
  if (value === undefined) return undefined;
  const { pid, started_at } = isRecord(value) ? value : {};
  return {
    unclean: true,
    pid: Number(pid) || 0,
    started_at: typeof started_at === 'string' ? started_at : '',
  };
}

function readJsonFile(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    // Null: a file torn by a crash is no report, but it is there.
    return hasCode(error, 'ENOENT') ? undefined : null;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function textOf(value: object): string {
  return `${JSON.stringify(value)}\n`;
}
