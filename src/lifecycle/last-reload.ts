import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** How a reload went: the content of `STATE_DIR/last-reload.json`, for the command that waits for it. */
export interface ReloadOutcome {
  readonly outcome: 'done' | 'refused';
  /** Why it was refused; empty when it was done. */
  readonly reason: string;
  /** Wall-clock milliseconds of its beginning: a signal before that moment is answered by it. */
  readonly started_ms: number;
  readonly duration_ms: number;
  readonly pid: number;
  /** What serves now. */
  readonly generation: number;
}

function outcomeFile(stateDir: string): string {
  return join(stateDir, 'last-reload.json');
}

/** @throws the system's error */
export async function keepReloadOutcome(stateDir: string, outcome: ReloadOutcome): Promise<void> {
  const draft = `${outcomeFile(stateDir)}.${process.pid}`;
  writeFileSync(draft, `${JSON.stringify(outcome)}\n`);
  renameSync(draft, outcomeFile(stateDir));
}

export function readReloadOutcome(stateDir: string): ReloadOutcome | undefined {
  try {
    return JSON.parse(readFileSync(outcomeFile(stateDir), 'utf8'));
  } catch {
    return undefined;
  }
}
