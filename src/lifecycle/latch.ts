import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ExitCode, StartError } from '../exit-code.ts';
import { makeDirectory, renameSynced, replaceFile } from '../platform/atomic-file.ts';

/** What a person has to run before the service starts again. */
export const UNLATCH = 'master-agent unlatch --reason "why it may start again"';

/** Why the service stays down: the content of `STATE_DIR/emergency.json`. */
export interface Latch {
  /** ISO 8601. */
  readonly time: string;
  /** The address, or the program, that asked for the emergency shutdown. */
  readonly by: string;
  readonly reason: string;
}

function latchFile(stateDir: string): string {
  return join(stateDir, 'emergency.json');
}

/** Latches the service. It is on disk when this resolves; bound the wait. @throws the system's error */
export async function setLatch(stateDir: string, latch: Latch): Promise<void> {
  await makeDirectory(stateDir);
  await replaceFile(latchFile(stateDir), `${JSON.stringify(latch)}\n`);
}

/** The latch, if one is set. One that cannot be read counts: nothing says that it may be ignored. */
export function readLatch(stateDir: string): Latch | undefined {
  const file = latchFile(stateDir);
  if (!existsSync(file)) return undefined;
  try {
    const { time, by, reason } = JSON.parse(readFileSync(file, 'utf8'));
    if (typeof time === 'string' && typeof by === 'string' && typeof reason === 'string')
      return { time, by, reason };
  } catch {
    // The file exists, even if it cannot be read.
  }
  return { time: 'an unknown time', by: 'somebody', reason: 'the latch cannot be read' };
}

/** @throws StartError 75 when an emergency shutdown has latched the service */
export function assertUnlatched(stateDir: string): void {
  const latch = readLatch(stateDir);
  if (latch === undefined) return;
  const why = latch.reason === '' ? '' : ` (${JSON.stringify(latch.reason)})`;
  throw new StartError(
    `Latched by an emergency shutdown at ${latch.time} by ${latch.by}${why}. To start again: ${UNLATCH}`,
    ExitCode.Latched,
  );
}

/** Lets the service start again. Keeps the old latch beside it and returns where. @throws the system's error */
export async function releaseLatch(stateDir: string): Promise<string> {
  const kept = join(stateDir, `emergency-${new Date().toISOString().replaceAll(':', '')}.json`);
  await renameSynced(latchFile(stateDir), kept);
  return kept;
}
