import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type FileHandle, link, open, readdir, rm } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { ConfigError } from '../config/settings.ts';
import { hasCode } from '../error.ts';
import { makeDirectory } from './atomic-file.ts';
import { within } from './deadline.ts';
import { identityOf, type ProcessIdentity, parseIdentity } from './process-identity.ts';

/** How long a holder may take to identify itself. A holder with a blocked event loop stays silent and still holds. */
const ANSWER_MS = 1_000;
/** Each round that fails has lost to another start, which then holds the lock or is dead. */
const ROUNDS = 20;

/** The holder of a directory's lock: none, a process that has identified itself, or one that did not answer. */
export type Holder =
  | { readonly kind: 'none' }
  | { readonly kind: 'known'; readonly process: ProcessIdentity; readonly host: string }
  | { readonly kind: 'silent' };

/** Gives the lock back. */
export type Release = () => Promise<void>;

/**
 * Locks a directory for this process, until it is released or the process ends, however it ends.
 *
 * The lock is a listening Unix socket, so the kernel frees it: a socket file that its process has left refuses
 * connections. It holds between containers that share the directory, but not between machines.
 *
 * The sockets are numbered, in the subdirectory `lock`, and the highest number counts. To lock is to find the highest
 * one dead and to link the next number, which only one process can do. Only the holder of a higher number removes lower
 * ones, and the highest is never removed, so a process that was slow always finds out that it came too late.
 * @throws ConfigError that names the process which holds it; the system's error when the directory cannot be used
 */
export async function lockStateDir(stateDir: string): Promise<Release> {
  const path = join(stateDir, 'lock');
  await makeDirectory(path);
  const directory = await open(path, 'r');
  let server: Server | undefined;
  try {
    const draft = `draft-${randomUUID()}`;
    server = await listenAt(inside(directory, path, draft));
    try {
      await linkNext(directory, path, draft, stateDir);
    } finally {
      await rm(join(path, draft), { force: true });
    }
  } catch (error) {
    server?.close();
    await directory.close();
    throw error;
  }
  const held = server;
  let released: Promise<unknown> | undefined;
  return async () => {
    released ??= new Promise((closed) => held.close(closed)).then(() => directory.close());
    await released;
  };
}

/** Finds the present holder of a directory's lock. @throws the system's error when that cannot be found out */
export async function holderOf(stateDir: string): Promise<Holder> {
  const path = join(stateDir, 'lock');
  let directory: FileHandle;
  try {
    directory = await open(path, 'r');
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return { kind: 'none' };
    throw error;
  }
  try {
    const [highest = 0] = await numbersIn(path);
    return await ask(directory, path, highest);
  } finally {
    await directory.close();
  }
}

async function linkNext(directory: FileHandle, path: string, draft: string, stateDir: string): Promise<void> {
  for (let round = 0; round < ROUNDS; round += 1) {
    const [highest = 0] = await numbersIn(path);
    const holder = await ask(directory, path, highest);
    if (holder.kind !== 'none') throw new ConfigError([heldLine(stateDir, holder)]);
    const ours = highest + 1;
    try {
      await link(join(path, draft), join(path, String(ours)));
    } catch (error) {
      if (hasCode(error, 'EEXIST')) continue;
      throw error;
    }
    const [now, ...lower] = await numbersIn(path);
    if (now === ours) {
      for (const number of lower) await rm(join(path, String(number)), { force: true });
      return;
    }
    // The lock has changed hands since we looked.
    await rm(join(path, String(ours)), { force: true });
  }
  throw new ConfigError([`STATE_DIR: many services start at once in "${stateDir}"`]);
}

/** Descending. One system call reads a small directory, so that it cannot miss the highest. */
async function numbersIn(path: string): Promise<number[]> {
  const names = (await readdir(path)).filter((name) => /^\d+$/.test(name));
  return names.map(Number).sort((one, other) => other - one);
}

/** A short path to an entry, because a socket's path is limited to 107 bytes (unix(7)). */
function inside(directory: FileHandle, path: string, name: string): string {
  return process.platform === 'linux' ? `/proc/self/fd/${directory.fd}/${name}` : join(path, name);
}

async function listenAt(path: string): Promise<Server> {
  const answer = JSON.stringify({ ...identityOf(), host: hostname() });
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.setTimeout(ANSWER_MS, () => socket.destroy());
    socket.unref();
    socket.end(answer);
  });
  const listening = once(server, 'listening');
  server.listen({ path });
  await listening;
  return server.unref();
}

/** Who holds the lock with this number; 0 is none. */
async function ask(directory: FileHandle, path: string, number: number, tries = 3): Promise<Holder> {
  if (number === 0) return { kind: 'none' };
  const again = (): Promise<Holder> => ask(directory, path, number, tries - 1);
  const socket = connect({ path: inside(directory, path, String(number)) });
  try {
    await once(socket, 'connect');
    let answer: string | undefined;
    await within(
      ANSWER_MS,
      text(socket).then((whole) => {
        answer = whole;
      }),
    );
    // It ended between the connection and the answer.
    if (answer === '' && tries > 1) return await again();
    return holderFrom(answer);
  } catch (error) {
    if (hasCode(error, 'ECONNRESET', 'EPIPE') && tries > 1) return await again();
    // ENOENT: a holder of a higher number has removed it since.
    if (hasCode(error, 'ECONNREFUSED', 'ENOENT')) return { kind: 'none' };
    // EAGAIN: the accept queue of a blocked process is full.
    if (hasCode(error, 'EAGAIN', 'ECONNRESET', 'EPIPE')) return { kind: 'silent' };
    throw error;
  } finally {
    socket.destroy();
  }
}

function holderFrom(answer = ''): Holder {
  let value: unknown;
  try {
    value = JSON.parse(answer);
  } catch {
    return { kind: 'silent' };
  }
  const process = parseIdentity(value);
  if (process === undefined) return { kind: 'silent' };
  const host = typeof value === 'object' && value !== null && 'host' in value ? String(value.host) : '';
  return { kind: 'known', process, host };
}

function heldLine(stateDir: string, holder: Holder): string {
  const who =
    holder.kind === 'known'
      ? `process ${holder.process.pid} on ${holder.host}, which is alive`
      : 'a process that is alive and does not answer';
  return `STATE_DIR: "${stateDir}" is in use by ${who}`;
}
