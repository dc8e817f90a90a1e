import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino';
import type { LogFormat, LogLevel } from '../config/settings.ts';

/** What each level is called in text, and its priority in the journal (sd-daemon(3), syslog(3)). */
const NAMES: Readonly<Record<string, { name: string; priority: number }>> = {
  trace: { name: 'TRACE', priority: 7 },
  debug: { name: 'DEBUG', priority: 7 },
  info: { name: 'INFO', priority: 6 },
  warn: { name: 'WARNING', priority: 4 },
  error: { name: 'ERROR', priority: 3 },
  fatal: { name: 'FATAL', priority: 2 },
};

/** Bytes kept while the descriptor refuses them. Past that lines are dropped: the log never takes the service down. */
const MOST_PENDING_BYTES = 1024 * 1024;

export interface LoggerOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** File descriptor to write to. */
  readonly fd?: number;
}

/**
 * The operational log. Each line is written before the call returns, so a line that was logged before the process
 * ended is there. A descriptor that fails loses lines, never the service.
 */
export function createLogger({ level, format, fd = 1 }: LoggerOptions): Logger {
  const output = destination({ fd, sync: true, maxLength: MOST_PENDING_BYTES });
  // Without a listener a full disk would be thrown out of every log.info().
  output.on('error', () => undefined);
  const stream: DestinationStream =
    format === 'json' ? output : { write: (line) => output.write(render(line, format === 'journal')) };
  return pino(
    { level, timestamp: stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } },
    stream,
  );
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
  // Each line of the journal has a priority of its own.
  return priorities ? `${text.replaceAll(/^/gm, `<${priority}>`)}\n` : `${text}\n`;
}
