import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, open, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { hasCode } from '../error.ts';

/** `flush` is fsync, before the file is closed. */
const SYNCED = { mode: 0o640, flush: true };

let drafts = 0;

/** Two writers of one file must not share a draft. */
function draftOf(file: string): string {
  drafts += 1;
  return `${file}.${process.pid}-${drafts}`;
}

/**
 * Puts a file in place whole or not at all. File and name are on disk when it resolves. A disk that hangs delays the
 * promise, never the event loop; bound the wait with `within`.
 * @throws the system's error; the old file is then still in place unless only the last sync failed
 */
export async function replaceFile(file: string, text: string): Promise<void> {
  const draft = draftOf(file);
  await withSyncedName(file, async () => {
    try {
      await writeFile(draft, text, SYNCED);
      await rename(draft, file);
    } catch (error) {
      await rm(draft, { force: true });
      throw error;
    }
  });
}

/** As `replaceFile`, for a process that ends in this turn of the loop. @throws the system's error */
export function replaceFileNow(file: string, text: string): void {
  const draft = draftOf(file);
  withSyncedNameNow(file, () => {
    try {
      writeFileSync(draft, text, SYNCED);
      renameSync(draft, file);
    } catch (error) {
      rmSync(draft, { force: true });
      throw error;
    }
  });
}

/** Renames a file within its directory; the new name is on disk when it resolves. @throws the system's error */
export function renameSynced(from: string, to: string): Promise<void> {
  return withSyncedName(to, () => rename(from, to));
}

/**
 * Makes or changes a file. Its name survives a power loss only when its directory is synced too, which is opened first:
 * one that cannot be synced must be known before anything has changed.
 * @throws the system's error
 */
export async function withSyncedName<T>(file: string, change: () => Promise<T>): Promise<T> {
  const directory = await open(dirname(file), 'r');
  try {
    const changed = await change();
    await directory.sync();
    return changed;
  } finally {
    await directory.close();
  }
}

/** As `withSyncedName`, without leaving this turn of the loop. @throws the system's error */
export function withSyncedNameNow<T>(file: string, change: () => T): T {
  const directory = openSync(dirname(file), 'r');
  try {
    const changed = change();
    fsyncSync(directory);
    return changed;
  } finally {
    closeSync(directory);
  }
}

/**
 * Makes a directory and those above it. Node's own recursive mkdir never returns below /proc, where a directory that
 * exists takes no other.
 * @throws the system's error
 */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await makeLast(path);
  } catch (error) {
    if (!hasCode(error, 'ENOENT') || dirname(path) === path) throw error;
    await makeDirectory(dirname(path));
    await makeLast(path);
  }
}

async function makeLast(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    // EEXIST, or another error that hides that it exists, such as EROFS.
    const found = await stat(path).catch(() => undefined);
    if (!found?.isDirectory()) throw error;
  }
}
