import type { SendHandle } from 'node:child_process';
import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import net, { type AddressInfo, Server as NetServer, type Server, type Socket } from 'node:net';
import { getSystemErrorName } from 'node:util';
import { ConfigError } from '../config/settings.ts';
import { hasCode, messageOf } from '../error.ts';
import { portOwner } from './port-owner.ts';

/** The settings an address comes from, for the message when it cannot be used. */
export interface AddressSettings {
  readonly host: 'HOST' | 'OPS_HOST';
  readonly port: 'PORT' | 'OPS_PORT';
}

export const SERVICE_ADDRESS: AddressSettings = { host: 'HOST', port: 'PORT' };
export const OPS_ADDRESS: AddressSettings = { host: 'OPS_HOST', port: 'OPS_PORT' };

/** The first descriptor that a service manager hands over (sd_listen_fds(3)). */
const FIRST_HANDED_FD = 3;

/** The descriptor of a listening socket that systemd has opened for this process; undefined when there is none. */
export function handedSocket(env: NodeJS.ProcessEnv = process.env): number | undefined {
  const forUs = env.LISTEN_PID === String(process.pid) && Number(env.LISTEN_FDS) > 0;
  return forUs ? FIRST_HANDED_FD : undefined;
}

/** Begins to accept on a socket that was handed over. @throws ConfigError when the descriptor is no such socket */
export async function listenOnHanded(server: Server, fd: number): Promise<void> {
  const listening = once(server, 'listening');
  try {
    server.listen({ fd });
    await listening;
  } catch (error) {
    throw new ConfigError([unlistenableHanded(fd, error)]);
  }
}

/** @throws ConfigError that names the setting and the address, when it is taken or is no address of this machine */
export async function listen(
  server: Server,
  host: string,
  port: number,
  names: AddressSettings,
): Promise<void> {
  const listening = once(server, 'listening');
  try {
    server.listen({ host, port });
    await listening;
  } catch (error) {
    throw new ConfigError([unlistenable(error, host, port, names)], { cause: error });
  }
}

/**
 * Checks that an address is free before anything is opened that would have to be closed again. It binds and does not
 * listen there: clients that connect all the time during a restart would be reset.
 * @throws ConfigError as `listen` does
 */
export async function probe(host: string, port: number, names: AddressSettings): Promise<void> {
  try {
    (await bind(host, port))?.close();
  } catch (error) {
    throw new ConfigError([unlistenable(error, host, port, names)], { cause: error });
  }
}

/** A bound socket on which other processes listen: this one holds it, and takes no connection from it. */
export interface HeldSocket {
  /** To be sent to a process that then listens on it. */
  readonly handle: SendHandle;
  close(): void;
}

/**
 * Binds the address, or takes the socket that was handed over, without listening. node:cluster holds the sockets of its
 * workers in this way, which is not documented: undefined where Node has it no longer, and then a process has to accept
 * for the others.
 * @throws ConfigError as `listen` and `listenOnHanded` do
 */
export async function holdSocket(host: string, port: number): Promise<HeldSocket | undefined> {
  const fd = handedSocket();
  try {
    return fd === undefined ? await bind(host, port) : createHandle(0, [null, 0, 4, fd]);
  } catch (error) {
    throw heldError(error, host, port);
  }
}

async function bind(host: string, port: number): Promise<HeldSocket | undefined> {
  const { address, family } = await lookup(host);
  return createHandle(port, [address, port, family]);
}

/** @param port 0: any @throws the system's error */
function createHandle(port: number, args: readonly unknown[]): HeldSocket | undefined {
  const create: unknown = Reflect.get(net, '_createServerHandle');
  if (typeof create !== 'function') return undefined;
  const handle: unknown = create(...args);
  if (typeof handle === 'number') throw systemError(getSystemErrorName(handle));
  if (!isBoundHandle(handle)) return undefined;
  // A taken address is not reported at once, and a listener would then get any free port.
  const bound = { port: 0 };
  const result = handle.getsockname(bound);
  if (result === 0 && (port === 0 || bound.port === port)) return { handle, close: () => handle.close() };
  handle.close();
  throw systemError(result === 0 ? 'EADDRINUSE' : getSystemErrorName(result));
}

/** `send` takes such a handle; its type leaves out what is not documented. */
type BoundHandle = SendHandle & { getsockname(out: { port: number }): number; close(): void };

function isBoundHandle(handle: unknown): handle is BoundHandle {
  if (typeof handle !== 'object' || handle === null) return false;
  return ['getsockname', 'close'].every((name) => typeof Reflect.get(handle, name) === 'function');
}

/**
 * Stops the reading that begins when a connection comes from another process, so that it can go on to a third one. Call
 * it in the turn in which the connection came.
 */
export function unread(socket: Socket): Socket {
  const handle: unknown = Reflect.get(socket, '_handle');
  if (typeof handle === 'object' && handle !== null) Reflect.get(handle, 'readStop')?.call(handle);
  return socket;
}

/** Why a process cannot listen on a held socket. */
export function heldError(error: unknown, host: string, port: number): ConfigError {
  const fd = handedSocket();
  const line =
    fd === undefined ? unlistenable(error, host, port, SERVICE_ADDRESS) : unlistenableHanded(fd, error);
  return new ConfigError([line], { cause: error });
}

/** An error of the system that is known by its code alone. */
export function systemError(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(code), { code });
}

export function addressOf(server: Server): AddressInfo | null {
  const address = server.address();
  return typeof address === 'object' ? address : null;
}

export function urlOf(server: Server): string {
  const address = addressOf(server);
  if (address === null) return 'no address';
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return `http://${host}:${address.port}`;
}

function unlistenable(error: unknown, host: string, port: number, names: AddressSettings): string {
  const got = `got ${host}:${port}`;
  if (hasCode(error, 'EADDRINUSE')) return taken(host, port, names);
  if (hasCode(error, 'EACCES')) return `${names.port}: want a port this user may listen on, ${got}`;
  if (hasCode(error, 'EADDRNOTAVAIL', 'ENOTFOUND', 'EAI_AGAIN', 'EINVAL', 'EAFNOSUPPORT')) {
    return `${names.host}: want an address of this machine, ${got} (${error.code})`;
  }
  return `${names.host}, ${names.port}: cannot listen on ${host}:${port}: ${messageOf(error)}`;
}

function unlistenableHanded(fd: number, error: unknown): string {
  return `LISTEN_FDS: want a listening socket as descriptor ${fd}, got: ${messageOf(error)}`;
}

function taken(host: string, port: number, names: AddressSettings): string {
  const owner = portOwner(port);
  const has = owner === undefined ? 'is taken' : `${owner} listens on`;
  return `${names.port}: want a free port, got ${host}:${port}, which ${has}`;
}

/** Closes the listening socket and nothing else: connections and their time limits stay. */
export function stopAccepting(server: Server): void {
  if (server.listening) NetServer.prototype.close.call(server);
}
