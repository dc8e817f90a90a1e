import { ConfigError } from '../config/settings.ts';
import { messageOf } from '../error.ts';

/** Tells the service manager how the service does (sd_notify(3)). Where there is none, every call does nothing. */
export interface Notifier {
  /** Whether there is a service manager that waits for word. */
  readonly listening: boolean;
  ready(): void;
  reloading(): void;
  stopping(): void;
  /** Shown by `systemctl status`. */
  status(text: string): void;
  /** Asks for so much more time than the unit grants. */
  extend(ms: number): void;
  /** The watchdog is fed; call at least twice in `watchdogMs`. */
  alive(): void;
  /** Undefined when the unit has no WatchdogSec. */
  readonly watchdogMs: number | undefined;
}

/** For a process that no service manager watches. */
export const SILENT = notifierOn(undefined, undefined);

// linux/socket.h, bits/socket_type.h
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;
const SUN_PATH_BYTES = 108;

/**
 * Finds the service manager's socket. Node has no datagram sockets for AF_UNIX, so this calls the C library through
 * koffi, which is an optional dependency and only loaded here.
 * @throws ConfigError when a manager waits for word and there is no koffi to send it with
 */
export async function createNotifier(env: NodeJS.ProcessEnv = process.env): Promise<Notifier> {
  const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = env;
  if (NOTIFY_SOCKET === undefined || NOTIFY_SOCKET === '') return SILENT;
  const watched = WATCHDOG_PID === undefined || WATCHDOG_PID === String(process.pid);
  const watchdogMs = watched && Number(WATCHDOG_USEC) > 0 ? Number(WATCHDOG_USEC) / 1000 : undefined;
  return notifierOn(await openSocket(NOTIFY_SOCKET), watchdogMs);
}

function notifierOn(send: ((state: string) => void) | undefined, watchdogMs: number | undefined): Notifier {
  return {
    listening: send !== undefined,
    ready: () => send?.('READY=1'),
    // CLOCK_MONOTONIC, which systemd compares a reload's begin with.
    reloading: () => send?.(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`),
    stopping: () => send?.('STOPPING=1'),
    status: (text) => send?.(`STATUS=${text.replaceAll('\n', ' ')}`),
    extend: (ms) => send?.(`EXTEND_TIMEOUT_USEC=${Math.ceil(ms) * 1000}`),
    alive: () => send?.('WATCHDOG=1'),
    watchdogMs,
  };
}

async function openSocket(path: string): Promise<(state: string) => void> {
  let koffi: typeof import('koffi').default;
  try {
    koffi = (await import('koffi')).default;
  } catch (error) {
    throw new ConfigError([
      `NOTIFY_SOCKET: the package koffi, which notifies systemd, cannot be loaded: ${messageOf(error)}. Install it (npm ci without ` +
        '--omit=optional), or use Type=exec',
    ]);
  }
  const libc = koffi.load(null);
  const socket = libc.func('int socket(int, int, int)');
  // ssize_t, as koffi spells it.
  const sendto = libc.func('long sendto(int, const void *, size_t, int, const void *, unsigned int)');
  const fd: number = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const address = socketAddress(path);
  return (state) => {
    const text = Buffer.from(state);
    sendto(fd, text, text.length, MSG_NOSIGNAL, address, address.length);
  };
}

/** A struct sockaddr_un (unix(7)). A path that begins with @ is in the abstract name space. */
function socketAddress(path: string): Buffer {
  const name = Buffer.from(path);
  if (name.length >= SUN_PATH_BYTES) {
    throw new ConfigError([`NOTIFY_SOCKET: want a path under ${SUN_PATH_BYTES} bytes, got "${path}"`]);
  }
  const abstract = path.startsWith('@');
  if (abstract) name[0] = 0;
  const address = Buffer.alloc(2 + name.length + (abstract ? 0 : 1));
  address.writeUInt16LE(AF_UNIX);
  name.copy(address, 2);
  return address;
}
