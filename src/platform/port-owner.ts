import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';

/** How long the search may take: it reads the descriptors of each process, and holds up a start that has failed. */
const SEARCH_MS = 250;
const MOST_CHARACTERS = 80;
/** TCP_LISTEN in the kernel's tcp_states.h. */
const LISTEN = '0A';

/** The process that listens on a port of this machine, with its command; undefined where /proc does not tell (proc(5)). */
export function portOwner(port: number): string | undefined {
  const sockets = new Set(['tcp', 'tcp6'].flatMap((table) => listeningSockets(table, port)));
  const untilMs = performance.now() + SEARCH_MS;
  for (const pid of sockets.size === 0 ? [] : namesIn('/proc').filter((name) => /^\d+$/.test(name))) {
    if (performance.now() > untilMs) return undefined;
    if (namesIn(`/proc/${pid}/fd`).some((fd) => sockets.has(linkOf(`/proc/${pid}/fd/${fd}`))))
      return `process ${pid} (${commandOf(pid)})`;
  }
  return undefined;
}

/** As the links of descriptors name them. */
function listeningSockets(table: string, port: number): string[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  return textOf(`/proc/net/${table}`)
    .split('\n')
    .map((row) => row.trim().split(/\s+/))
    .filter(([, local, , state]) => state === LISTEN && local?.endsWith(suffix))
    .map((fields) => `socket:[${fields[9]}]`);
}

/** The program and its script, not its other arguments: they may hold secrets. */
function commandOf(pid: string): string {
  const [program = '', ...args] = textOf(`/proc/${pid}/cmdline`).split('\0');
  const script = args.find((arg) => !arg.startsWith('-') && arg.includes('/')) ?? '';
  const command = `${basename(program)} ${script}`.trim();
  return command.replaceAll(/\p{C}/gu, '?').slice(0, MOST_CHARACTERS);
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    // Another user's process, or one that has ended.
    return [];
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
