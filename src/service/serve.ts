import type { Logger } from 'pino';
import { type Config, ConfigError, frozenDifferences, parseConfig } from '../config.ts';
import { readEnvironment } from '../environment.ts';
import { messageOf } from '../error.ts';
import { ExitCode, StartError } from '../lifecycle/exit-code.ts';
import { readPidFile, removePidFile, writePidFile } from '../lifecycle/pid-file.ts';
import type { SignalTrap } from '../lifecycle/signals.ts';
import { createLogger, LOG_FORMATS, type LogFormat } from '../logger.ts';
import { Service } from './service.ts';

/**
 * The service as a process: settings from the environment, signals, a PID file, and the exit code at the end.
 * @param app the application's module when it was named on the command line; it goes before `APP`
 */
export async function serve(signals: SignalTrap, app: string | undefined): Promise<ExitCode> {
  let pidFile: string | undefined;
  try {
    const config = configure(app);
    const log = createLogger({ level: config.logLevel, format: formatOf(config.logFormat) });
    log.info(`Service state: STARTING - Configuration loaded (pid ${process.pid})`);
    if (config.pidFile !== undefined) {
      claimPidFile(config.pidFile, log);
      pidFile = config.pidFile;
    }
    const service = new Service(config.app ?? {}, config, log);
    handleSignals(signals, service, config, app, log);
    await service.start();
    return (await service.stopped).exit_code;
  } catch (error) {
    return explain(error);
  } finally {
    if (pidFile !== undefined) removePidFile(pidFile);
  }
}

/** The chain from a signal to what it does. */
function handleSignals(
  signals: SignalTrap,
  service: Service,
  current: Config,
  app: string | undefined,
  log: Logger,
): void {
  signals.deliverTo({
    stop: (signal) => void service.stop(signal),
    force: (signal) => void service.force(signal),
    crash: (origin, error) => void service.crash(origin, error),
    reload: () => reload(service, current, app, log),
  });
}

/** Re-reads the settings that can change while running. A mistake in them changes nothing. */
function reload(service: Service, current: Config, app: string | undefined, log: Logger): void {
  log.info('Received signal 1. Reloading settings...');
  if (service.state !== 'running') {
    log.warn(`Reload refused: the service is ${service.state}`);
    return;
  }
  try {
    const next = configure(app);
    const frozen = frozenDifferences(current, next);
    if (frozen.length > 0)
      throw new ConfigError(frozen.map((name) => `${name}: want a restart to change it`));
    service.reload(next);
    log.info('Settings reloaded');
  } catch (error) {
    const why = error instanceof ConfigError ? error.mistakes.join('; ') : messageOf(error);
    log.error(`Reload refused, the settings stay as they were: ${why}`);
  }
}

function configure(app: string | undefined): Config {
  const variables = readEnvironment();
  return parseConfig({
    ...variables,
    APP: app ?? variables.APP,
    STATE_DIR: variables.STATE_DIR || variables.STATE_DIRECTORY,
  });
}

/** @throws StartError 78 when the file names another process that is alive, or cannot be written */
function claimPidFile(file: string, log: Logger): void {
  try {
    const owner = readPidFile(file);
    if (owner.kind === 'ours' && owner.pid !== process.pid) {
      throw new StartError(
        `PID_FILE: want no other service on ${file}, got process ${owner.pid}, which is alive`,
        ExitCode.Config,
      );
    }
    if (owner.kind === 'dead') log.warn(`PID file ${file} was left by process ${owner.pid}, which is dead`);
    if (owner.kind === 'recycled') {
      log.warn(`PID file ${file} was left behind: process ${owner.pid} is something else now`);
    }
    if (owner.kind === 'unreadable')
      log.warn(`PID file ${file} held no process id, but ${JSON.stringify(owner.content)}`);
    writePidFile(file);
  } catch (error) {
    if (error instanceof StartError) throw error;
    throw new StartError(
      `PID_FILE: want a file that can be written, got "${file}": ${messageOf(error)}`,
      ExitCode.Config,
    );
  }
}

/** Says why there is no service, on standard error, one line for each mistake. */
function explain(error: unknown): ExitCode {
  const { LOG_FORMAT } = process.env;
  const format = formatOf(
    LOG_FORMATS.find((name) => name === LOG_FORMAT),
    process.stderr.isTTY,
  );
  const log = createLogger({ level: 'info', format, fd: 2 });
  if (error instanceof ConfigError) {
    for (const mistake of error.mistakes) log.fatal(mistake);
    return ExitCode.Config;
  }
  if (error instanceof StartError) {
    log.fatal(error.message);
    // The line above is what an operator needs; where in the application it happened is for its author.
    if (error.exitCode === ExitCode.Internal && error.cause !== undefined)
      log.error({ err: error.cause }, 'The cause');
    return error.exitCode;
  }
  log.fatal({ err: error }, `Internal error: ${messageOf(error)}`);
  return ExitCode.Internal;
}

function formatOf(format: LogFormat | undefined, terminal = process.stdout.isTTY): LogFormat {
  return format ?? (terminal ? 'text' : 'json');
}
