import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { hasCode, messageOf } from '../error.ts';
import { ExitCode, StartError } from '../exit-code.ts';
import { whatBecameOf } from '../platform/pid-file.ts';

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
  /** Of those in flight: answered whole, and left by their clients. */
  readonly completed: number;
  readonly aborted: number;
  readonly cut: readonly CutRequest[];
  /** Requests answered with 503 since the lock. */
  readonly rejected: number;
  readonly exit_code: ExitCode;
}

/** What is known of a run that ended without a report: it was killed, or the machine went down. */
export interface UncleanEnd {
  readonly unclean: true;
  readonly pid: number;
  readonly started_at: string;
}

export type LastShutdown = ShutdownReport | UncleanEnd;

/**
 * Metrics die with their process, so the end of each stop is kept in a file for the next start to show. That a run
 * is under way is a file too: one that is found at a start belongs to a run that never came to its end.
 */
export class ShutdownRecord {
  /** How the run before this one ended; undefined when there was none. */
  readonly last: LastShutdown | undefined;
  readonly #report: string;
  readonly #running: string;
  readonly #started: UncleanEnd = { unclean: true, pid: process.pid, started_at: new Date().toISOString() };

  /** @throws the system's error when the directory cannot be made, read or written. */
  constructor(stateDir: string) {
    mkdirSync(stateDir, { recursive: true });
    this.#report = reportFile(stateDir);
    this.#running = runningFile(stateDir);
    this.last = readUnclean(this.#running) ?? readReport(this.#report);
    replaceFile(this.#running, this.#started);
  }

  /** @throws StartError 78 when the directory cannot be used, 74 when it can as soon as there is room again */
  static async open(stateDir: string): Promise<ShutdownRecord> {
    try {
      return new ShutdownRecord(stateDir);
    } catch (error) {
      throw new StartError(
        `STATE_DIR: want a directory that can be written, got "${stateDir}": ${messageOf(error)}`,
        // As soon as there is room again it can be used.
        hasCode(error, 'ENOSPC', 'EDQUOT', 'EIO') ? ExitCode.AuditLost : ExitCode.Config,
        { cause: error },
      );
    }
  }

  /** Notes where the ops server is, for the commands that look for it. */
  async announce(opsServer: string): Promise<void> {
    replaceFile(this.#running, { ...this.#started, operator_door: opsServer });
  }

  /** The run is over. @throws the system's error when the report cannot be written. */
  async close(report: ShutdownReport): Promise<void> {
    replaceFile(this.#report, report);
    rmSync(this.#running, { force: true });
  }

  /** The run never began: there is nothing to report, and an unclean end before it is still to be told. */
  async abandon(): Promise<void> {
    if (!this.last?.unclean) {
      rmSync(this.#running, { force: true });
      return;
    }
    try {
      replaceFile(this.#running, this.last);
    } catch {
      // On a full disk our own note stays, and says that there was an unclean end, too.
    }
  }
}

/** Where the ops server of the run under way is; undefined when there is none, or it is off. */
export function findOpsServer(stateDir: string): string | undefined {
  const value = readJsonFile(runningFile(stateDir));
  return isRecord(value) && typeof value.operator_door === 'string' ? value.operator_door : undefined;
}

/** The process of the run that is under way, if it is; it needs no PID file for that. */
export function findLiveRun(stateDir: string): number | undefined {
  const run = readUnclean(runningFile(stateDir));
  return run !== undefined && run.pid > 0 && whatBecameOf(run.pid, Date.parse(run.started_at)) === 'ours'
    ? run.pid
    : undefined;
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
  return isRecord(value) && value.unclean === false ? (value as unknown as ShutdownReport) : undefined;
}

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
    // A file torn by a crash is no report, but it is there.
    return hasCode(error, 'ENOENT') ? undefined : null;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** Puts a file in place whole or not at all, and on disk before it returns. */
function replaceFile(file: string, value: unknown): void {
  const draft = `${file}.${process.pid}`;
  try {
    const descriptor = openSync(draft, 'w', 0o640);
    try {
      writeFileSync(descriptor, `${JSON.stringify(value)}\n`);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(draft, file);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
}
