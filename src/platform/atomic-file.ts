import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { hasCode } from '../error.ts';

const MODE = 0o640;

let drafts = 0;

/** Two writers of one file must not share a draft. */
function draftOf(file: string): string {
  drafts += 1;
  return `${file}.${process.pid}-${drafts}`;
}

/**
 * Puts a file in place whole or not at all. File and name are on disk when it resolves: a new name survives a power
 * loss only when its directory is synced too. A disk that hangs delays the promise, never the event loop; bound the
 * wait with `within`.
 * @throws the system's error; the old file is then still in place unless only the last sync failed
 */
export async function replaceFile(file: string, text: string): Promise<void> {
  const draft = draftOf(file);
  // Opened first: a directory that cannot be synced must be known before anything has changed.
  const directory = await open(dirname(file), 'r');
  try {
    await writeSynced(draft, text);
    await rename(draft, file);
    await directory.sync();
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  } finally {
    await directory.close();
  }
}

/** As `replaceFile`, for a process that ends in this turn of the loop. @throws the system's error */
export function replaceFileNow(file: string, text: string): void {
  const draft = draftOf(file);
  const directory = openSync(dirname(file), 'r');
  try {
    const descriptor = openSync(draft, 'w', MODE);
    try {
      writeFileSync(descriptor, text);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(draft, file);
    fsyncSync(directory);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  } finally {
    closeSync(directory);
  }
}

/** Renames a file within its directory; the new name is on disk when it resolves. @throws the system's error */
export async function renameSynced(from: string, to: string): Promise<void> {
  const directory = await open(dirname(to), 'r');
  try {
    await rename(from, to);
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/**
 * Makes a directory and those above it. Node's own recursive mkdir never returns below /proc, where a directory that
 * exists takes no other.
 * @throws the system's error
 */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const parent = dirname(path);
    if (hasCode(error, 'ENOENT') && parent !== path) {
      await makeDirectory(parent);
      await mkdir(path).catch((again: unknown) => ignoreExisting(again));
      return;
    }
    // Another error, such as EROFS, may hide that it exists.
    const isDirectory = await stat(path).then(
      (found) => found.isDirectory(),
      () => false,
    );
    if (!isDirectory) throw error;
  }
}

function ignoreExisting(error: unknown): void {
  if (!hasCode(error, 'EEXIST')) throw error;
}

async function writeSynced(file: string, text: string): Promise<void> {
  const handle: FileHandle = await open(file, 'w', MODE);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A new file's name is on disk only when its directory is. @throws the system's error */
export async function syncDirectoryOf(file: string): Promise<void> {
  const directory = await open(dirname(file), 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** As `syncDirectoryOf`, without leaving this turn of the loop. @throws the system's error */
export function syncDirectoryOfNow(file: string): void {
  const directory = openSync(dirname(file), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
