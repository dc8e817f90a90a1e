import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { replaceFile } from '../platform/atomic-file.ts';

/** How a reload went: the content of `STATE_DIR/last-reload.json`, for the command that waits for it. */
export interface ReloadOutcome {
  readonly outcome: 'done' | 'refused';
  /** What is new now. */
  readonly what: 'nothing' | 'settings' | 'code and settings';
  /** Why it was refused; empty when it was done. */
  readonly reason: string;
  /** Wall-clock milliseconds at its beginning: it answers the signals sent before. */
  readonly started_ms: number;
  readonly duration_ms: number;
  readonly pid: number;
  /** The generation that serves now. */
  readonly generation: number;
}

function outcomeFile(stateDir: string): string {
  return join(stateDir, 'last-reload.json');
}

/** @throws the system's error */
export function keepReloadOutcome(stateDir: string, outcome: ReloadOutcome): Promise<void> {
  return replaceFile(outcomeFile(stateDir), `${JSON.stringify(outcome)}\n`);
}

export function readReloadOutcome(stateDir: string): ReloadOutcome | undefined {
  try {
    return JSON.parse(readFileSync(outcomeFile(stateDir), 'utf8'));
  } catch {
    return undefined;
  }
}

/** One line about a reload. @param took how long it took, when that is told: ` in 12 ms` */
export function reloadLine({ outcome, what, generation, reason }: ReloadOutcome, took = ''): string {
  if (outcome === 'refused') return `Reload refused, generation ${generation} goes on serving: ${reason}`;
  // An older version, which may still run, does not say what.
  return what === 'settings'
    ? `Settings reloaded${took}; the code stays (code needs WORKERS or a restart)`
    : `Reloaded${took}: generation ${generation} serves`;
}

/** Why a reload was refused, on one line. */
export function refusalOf(error: unknown): string {
  const told = error instanceof ConfigError ? error.mistakes.join('; ') : messageOf(error);
  return told || 'an error without a message';
}
