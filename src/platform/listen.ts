import { once } from 'node:events';
import { type AddressInfo, connect, createServer, Server as NetServer, type Server } from 'node:net';
import { hasCode, messageOf } from '../error.ts';
import { ExitCode, StartError } from '../exit-code.ts';
import { within } from './deadline.ts';

/** The settings an address comes from, for the message when it cannot be had. */
export interface AddressSettings {
  readonly host: 'HOST' | 'OPS_HOST';
  readonly port: 'PORT' | 'OPS_PORT';
}

export const SERVICE_ADDRESS: AddressSettings = { host: 'HOST', port: 'PORT' };
export const OPS_ADDRESS: AddressSettings = { host: 'OPS_HOST', port: 'OPS_PORT' };

/** How long a connection to an address of this machine may take. */
const PROBE_MS = 1_000;

/** The first descriptor that a service manager hands over (sd_listen_fds(3)). */
const FIRST_HANDED_FD = 3;

/** The descriptor of a listening socket that systemd has opened for this process; undefined when there is none. */
export function handedSocket(env: NodeJS.ProcessEnv = process.env): number | undefined {
  const forUs = env.LISTEN_PID === String(process.pid) && Number(env.LISTEN_FDS) > 0;
  return forUs ? FIRST_HANDED_FD : undefined;
}

/** Begins to accept on a socket that was handed over. @throws StartError 78 when it is none */
export async function listenOnHanded(server: Server, fd: number): Promise<void> {
  const listening = once(server, 'listening');
  try {
    server.listen({ fd });
    await listening;
  } catch (error) {
    throw new StartError(
      `LISTEN_FDS: want a listening socket as descriptor ${fd}, got: ${messageOf(error)}`,
      ExitCode.Config,
    );
  }
}

/** @throws StartError 78 that names the setting and the address, when it is taken or is no address of this machine */
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
    throw new StartError(unlistenable(error, host, port, names), ExitCode.Config, { cause: error });
  }
}

/**
 * Finds out whether an address can be had, before anything is opened that would have to be closed again. It does not
 * listen there: whoever connected in that moment, as clients do all the time during a restart, would be reset.
 * @throws StartError as `listen` does
 */
export async function probe(host: string, port: number, names: AddressSettings): Promise<void> {
  const server = createServer();
  const listening = once(server, 'listening');
  try {
    // On a port that nobody knows.
    server.listen({ host, port: 0 });
    await listening;
  } catch (error) {
    throw new StartError(unlistenable(error, host, port, names), ExitCode.Config, { cause: error });
  }
  const closed = once(server, 'close');
  server.close();
  await closed;
  if (port !== 0 && (await isListening(host, port)))
    throw new StartError(taken(host, port, names), ExitCode.Config);
}

async function isListening(host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port });
  try {
    // A socket that the kernel has given this very port is connected to itself.
    return (await within(PROBE_MS, once(socket, 'connect'))) && socket.localPort !== port;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
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

function taken(host: string, port: number, names: AddressSettings): string {
  return `${names.port}: want a free port, got ${host}:${port}, which is taken`;
}

/** Closes the listening socket and nothing else: the connections, and their time limits, stay as they are. */
export function stopAccepting(server: Server): void {
  if (server.listening) NetServer.prototype.close.call(server);
}
