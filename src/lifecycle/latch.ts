import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { ExitCode, StartError } from '../exit-code.ts';

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

/** Latches the service. It is on disk when this returns. @throws the system's error */
export async function setLatch(stateDir: string, latch: Latch): Promise<void> {
  mkdirSync(stateDir, { recursive: true });
  const file = latchFile(stateDir);
  const draft = `${file}.${process.pid}`;
  try {
    sync(draft, 'w', (fd) => writeFileSync(fd, `${JSON.stringify(latch)}\n`));
    renameSync(draft, file);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
  // The name is only on disk when its directory is.
  sync(stateDir, 'r', () => undefined);
}

/** The latch that holds, if one does. A file that cannot be read holds too: nobody knows that it may be ignored. */
export function readLatch(stateDir: string): Latch | undefined {
  const file = latchFile(stateDir);
  if (!existsSync(file)) return undefined;
  try {
    const { time, by, reason } = JSON.parse(readFileSync(file, 'utf8'));
    if (typeof time === 'string' && typeof by === 'string' && typeof reason === 'string')
      return { time, by, reason };
  } catch {
    // It is there all the same.
  }
  return { time: 'an unknown time', by: 'somebody', reason: 'the latch cannot be read' };
}

/** @throws StartError 75 when an emergency shutdown has latched the service */
export function assertUnlatched(stateDir: string): void {
  const latch = readLatch(stateDir);
  if (latch === undefined) return;
  const why = latch.reason === '' ? '' : ` (${JSON.stringify(latch.reason)})`;
  throw new StartError(
    `Latched by an emergency shutdown at ${latch.time} by ${latch.by}${why}. To start again: master-agent unlatch`,
    ExitCode.Latched,
  );
}

/** Lets the service start again. The old latch is kept beside it; returns where. @throws the system's error */
export function releaseLatch(stateDir: string): string {
  const kept = join(stateDir, `emergency-${new Date().toISOString().replaceAll(':', '')}.json`);
  renameSync(latchFile(stateDir), kept);
  sync(stateDir, 'r', () => undefined);
  return kept;
}

function sync(path: string, flags: string, fill: (fd: number) => void): void {
  const fd = openSync(path, flags, 0o640);
  try {
    fill(fd);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
