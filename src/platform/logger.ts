import { type Logger, type LoggerOptions as PinoOptions, pino, stdTimeFunctions } from 'pino';
import type { LogFormat, LogLevel } from '../config/settings.ts';
import { plural } from '../plural.ts';
import { LogOutput } from './log-output.ts';

export { flushLog } from './log-output.ts';

/** What each level is called in text, and its priority in the journal (sd-daemon(3), syslog(3)). */
const NAMES: Readonly<Record<string, { name: string; priority: number }>> = {
  trace: { name: 'TRACE', priority: 7 },
  debug: { name: 'DEBUG', priority: 7 },
  info: { name: 'INFO', priority: 6 },
  warn: { name: 'WARNING', priority: 4 },
  error: { name: 'ERROR', priority: 3 },
  fatal: { name: 'FATAL', priority: 2 },
};

export interface LoggerOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** File descriptor to write to. */
  readonly fd?: number;
}

/**
 * The operational log. It never blocks and never throws: what a reader does not take is kept, then dropped, counted
 * and told when the reader is back. Call `flushLog` as the last thing of a process.
 */
export function createLogger({ level, format, fd = 1 }: LoggerOptions): Logger {
  const options: PinoOptions = {
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  };
  const text = (line: string): string => (format === 'json' ? line : render(line, format === 'journal'));
  let rendered = '';
  // Not on the level of the log: what is missing from it is always told.
  const notice = pino(options, {
    write: (line) => {
      rendered = text(line);
    },
  });
  const output = new LogOutput(fd, (dropped) => {
    notice.warn({ dropped }, `${plural(dropped, 'log line')} dropped`);
    return rendered;
  });
  return pino({ ...options, level }, { write: (line) => output.write(text(line)) });
}

interface Line {
  readonly level: string;
  readonly msg?: string;
  readonly err?: { readonly stack?: string };
}

function render(json: string, priorities: boolean): string {
  const line: Line = JSON.parse(json);
  const { name, priority } = NAMES[line.level] ?? { name: line.level.toUpperCase(), priority: 6 };
  const text = `${name}: ${line.msg ?? ''}${line.err?.stack === undefined ? '' : `\n${line.err.stack}`}`;
  // The journal wants a priority on each line.
  return priorities ? `${text.replaceAll(/^/gm, `<${priority}>`)}\n` : `${text}\n`;
}
