import { hostname } from 'node:os';
import type { Writable } from 'node:stream';
import { isatty } from 'node:tty';
import { type Logger, type LoggerOptions as PinoOptions, pino, stdTimeFunctions } from 'pino';
import type { LogFormat, LogLevel } from '../config/settings.ts';
import { plural } from '../plural.ts';
import { escapeControl } from './escape-control.ts';
import { LogOutput } from './log-output.ts';

export { flushLog } from './log-output.ts';

/** What each level is called in text, its priority in the journal (sd-daemon(3), syslog(3)), its colour (ECMA-48). */
const LEVELS: Readonly<Record<string, { name: string; priority: number; colour: string }>> = {
  trace: { name: 'TRACE', priority: 7, colour: '2' },
  debug: { name: 'DEBUG', priority: 7, colour: '2' },
  info: { name: 'INFO', priority: 6, colour: '32' },
  warn: { name: 'WARNING', priority: 4, colour: '33' },
  error: { name: 'ERROR', priority: 3, colour: '31' },
  fatal: { name: 'FATAL', priority: 2, colour: '1;31' },
};

export interface LoggerOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** File descriptor to write to. */
  readonly fd?: number;
  /** The stream of `fd`, where others may have replaced its `write`. */
  readonly stream?: Writable;
  /** Whether people read it as it comes: default, whether the descriptor is a terminal. */
  readonly terminal?: boolean;
  /** Of a worker, whose lines then say so. */
  readonly worker?: number;
}

/**
 * The operational log. It never blocks and never throws: what a reader does not take is kept, then dropped, counted
 * and told when the reader is back. Call `flushLog` as the last thing of a process.
 */
export function createLogger(options: LoggerOptions): Logger {
  const { level, format, fd = 1, stream, terminal = isatty(fd), worker } = options;
  const { NO_COLOR, TERM } = process.env;
  const coloured = !NO_COLOR && TERM !== 'dumb';
  const shared: PinoOptions = {
    // pino leaves out what is undefined.
    base: { pid: process.pid, hostname: hostname(), worker },
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  };
  const text = (json: string): string => {
    if (format === 'json') return json;
    const line: Line = JSON.parse(json);
    if (format === 'text') return terminal ? forTerminal(line, coloured) : plain(line);
    // The journal wants a priority on each line.
    const priority = `<${levelOf(line).priority}>`;
    return `${plain(line).trimEnd().replaceAll(/^/gm, priority)}\n`;
  };
  let rendered = '';
  // Not on the level of the log: what is missing from it is always told.
  const notice = pino(shared, {
    write: (line) => {
      rendered = text(line);
    },
  });
  const output = new LogOutput(
    fd,
    (dropped) => {
      notice.warn({ dropped }, `${plural(dropped, 'log line')} dropped`);
      return rendered;
    },
    stream,
  );
  return pino({ ...shared, level }, { write: (line) => output.write(text(line)) });
}

interface Line {
  readonly level: string;
  readonly time: string;
  readonly msg?: string;
  readonly err?: { readonly stack?: string };
  readonly worker?: number;
  readonly [field: string]: unknown;
}

function levelOf({ level }: Line): { name: string; priority: number; colour: string } {
  return LEVELS[level] ?? { name: level.toUpperCase(), priority: 6, colour: '0' };
}

/** The message as people search for it: nothing comes between it and its level. */
function messageOf(line: Line): string {
  return `${levelOf(line).name}: ${line.msg ?? ''}`;
}

function stackOf({ err }: Line): string {
  return err?.stack === undefined ? '' : `\n${err.stack}`;
}

function plain(line: Line): string {
  const { worker } = line;
  return `${messageOf(line)}${worker === undefined ? '' : ` (worker ${worker})`}${stackOf(line)}\n`;
}

/** The time, the message in the colour of its level, and the fields. */
function forTerminal(line: Line, coloured: boolean): string {
  const { level: _level, time, msg: _msg, err: _err, pid: _pid, hostname: _hostname, ...fields } = line;
  const shown = Object.entries(fields).map(([name, value]) => {
    const isPlain = typeof value === 'string' && !/[\s"=]/.test(value);
    return ` ${name}=${isPlain ? value : JSON.stringify(value)}`;
  });
  const paint = (colour: string, text: string): string => {
    const safe = escapeControl(text, Number.POSITIVE_INFINITY);
    return coloured && safe !== '' ? `\x1b[${colour}m${safe}\x1b[0m` : safe;
  };
  const clock = `${new Date(time).toTimeString().slice(0, 8)}${time.slice(19, 23)}`;
  const message = paint(levelOf(line).colour, messageOf(line));
  return `${paint('2', clock)} ${message}${paint('2', shown.join(''))}${stackOf(line)}\n`;
}
