import type { Logger } from 'pino';
import { ConfigError, formatOf, LOG_FORMATS } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { ExitCode, StartError } from '../exit-code.ts';
import { createLogger } from '../platform/logger.ts';

/** On standard error, with the format that was asked for if that can be told. */
export function logOfFailure(): Logger {
  const { LOG_FORMAT } = process.env;
  const format = formatOf(
    LOG_FORMATS.find((name) => name === LOG_FORMAT),
    process.stderr.isTTY,
  );
  return createLogger({ level: 'info', format, fd: 2 });
}

/** Says why there is no service, one line for each mistake. */
export function explain(error: unknown): ExitCode {
  const log = logOfFailure();
  if (error instanceof ConfigError) {
    for (const mistake of error.mistakes) log.fatal(mistake);
    return ExitCode.Config;
  }
  if (error instanceof StartError) {
    log.fatal(error.message);
    // The line above is for the operator, the stack for the author of the application.
    if (error.exitCode === ExitCode.Internal && error.cause !== undefined)
      log.error({ err: error.cause }, 'The cause');
    return error.exitCode;
  }
  log.fatal({ err: error }, `Internal error: ${messageOf(error)}`);
  return ExitCode.Internal;
}
