import { parseArgs } from 'node:util';
import type { Logger } from 'pino';
import { assertAppFile } from '../app/app.ts';
import { InProcess } from '../backends/in-process/in-process.ts';
import { rehearseSoon } from '../backends/in-process/rehearsal.ts';
import { environmentDoubts, readEnvironment } from '../config/environment.ts';
import { type Config, ConfigError, formatOf, parseConfig } from '../config/settings.ts';
import type { Backend, Host, Settings } from '../control/backend.ts';
import { Controller } from '../control/controller.ts';
import { messageOf } from '../error.ts';
import { ExitCode } from '../exit-code.ts';
import { within } from '../platform/deadline.ts';
import { createLogger } from '../platform/logger.ts';
import { readPidFile, removePidFile, removePidFileNow, writePidFile } from '../platform/pid-file.ts';
import type { SignalTrap } from '../platform/signals.ts';
import { createNotifier } from '../platform/systemd.ts';
import { version } from '../version.ts';
import { explain, logOfFailure } from './explain.ts';
import { fateIn } from './find-service.ts';
import { complain, helpText } from './help.ts';

/** How long removing the PID file may take: a disk that hangs must not delay the exit. */
const DISK_MS = 500;

/** `master-agent [serve] [APP]` */
export async function run(args: readonly string[], signals: SignalTrap): Promise<number> {
  let app: string | undefined;
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: { help: { type: 'boolean', short: 'h' }, version: { type: 'boolean', short: 'v' } },
      allowPositionals: true,
    });
    if (values.help || values.version) {
      process.stdout.write(values.help ? helpText() : `${version}\n`);
      return ExitCode.Ok;
    }
    if (positionals.length > 1) throw new Error(`want one application, got ${positionals.join(' ')}`);
    [app] = positionals;
  } catch (error) {
    return complain(error);
  }
  return serve(signals, { app });
}

const GUARD_HELP = `usage: master-agent guard [--] COMMAND [ARG...]

Runs a program that serves HTTP/1.1, in any language, behind the gate. The service listens on HOST and PORT; the program
gets an address of its own: {socket} in its arguments becomes the path of a Unix socket that only this user can reach,
{port} a free port of 127.0.0.1. Without {socket}, PORT and HOST in its environment say the same.

  master-agent guard -- uvicorn app:app --uds {socket}
  master-agent guard -- ./server -listen 127.0.0.1:{port}
  master-agent guard -- node server.js

Without COMMAND, GUARD_COMMAND is run, or with GUARD_PORT alone, a program that somebody else runs is found there. All other settings are those of the service: master-agent --help lists them.

  --help   this

exit: as a service, and 70 when the program does not start, or cannot be restarted
`;

/** `master-agent guard [--] COMMAND [ARG...]` */
export async function guard(args: readonly string[], signals: SignalTrap): Promise<number> {
  const [first, ...rest] = args;
  if (first === '--help' || first === '-h') {
    process.stdout.write(GUARD_HELP);
    return ExitCode.Ok;
  }
  if (first?.startsWith('-') && first !== '--')
    return complain(new Error(`guard: want a command, got the option ${first}`));
  const words = first === '--' ? rest : args;
  return serve(signals, { isGuard: true, command: words.length === 0 ? undefined : JSON.stringify(words) });
}

/** What the command line says, which wins over the environment. */
interface Given {
  readonly app?: string | undefined;
  readonly isGuard?: boolean;
  /** The program to guard, as GUARD_COMMAND has it. */
  readonly command?: string | undefined;
}

/** The service as a process: settings from the environment, signals, a PID file, and the exit code at the end. */
async function serve(signals: SignalTrap, given: Given): Promise<ExitCode> {
  let pidFile: string | undefined;
  try {
    const { config, variables } = configureOrWarn(given);
    const log = createLogger({ level: config.logLevel, format: formatOf(config.logFormat) });
    const warn = (): void => {
      for (const doubt of environmentDoubts()) log.warn(doubt);
    };
    log.info(`Service state: STARTING - Configuration loaded (pid ${process.pid})`);
    warn();
    if (config.pidFile !== undefined) {
      claimPidFile(config.pidFile, config.stateDir, log);
      pidFile = config.pidFile;
    }
    if (config.app !== undefined) assertAppFile(config.app);
    const controller = new Controller({
      config,
      log,
      backend: await chooseBackend({ config, variables }, signals),
      notifier: await createNotifier(),
      configure: () => {
        const settings = configure(given);
        warn();
        return settings;
      },
    });
    const actions = controller.signalActions;
    const exit = (code: number): void => {
      actions.exit(code);
      if (pidFile !== undefined) removePidFileNow(pidFile);
    };
    signals.deliverTo({ ...actions, exit }, log);
    await controller.start();
    if (config.workers === 0 || isGuarded(config)) rehearseSoon(config, controller.lifecycle, log);
    const report = await controller.stopped;
    await signals.release();
    return report.exit_code;
  } catch (error) {
    return explain(error);
  } finally {
    if (pidFile !== undefined) await within(DISK_MS, removePidFile(pidFile));
  }
}

/** Without a command, but with a port, somebody else runs the program. */
function isGuarded({ app, guardCommand, guardPort }: Config): boolean {
  return guardCommand !== undefined || (app === undefined && guardPort > 0);
}

/** Loads workers only where they are wanted: a start is quicker without. */
async function chooseBackend(settings: Settings, signals: SignalTrap): Promise<(host: Host) => Backend> {
  const { config } = settings;
  if (isGuarded(config)) {
    const { Program } = await import('../backends/program/program.ts');
    return (host) => new Program(host, settings);
  }
  if (config.workers === 0) return (host) => new InProcess(host, { app: config.app ?? {}, config, signals });
  const { Workers } = await import('../backends/workers/workers.ts');
  return (host) => new Workers(host, settings);
}

/** A misspelled name is often the other half of a mistake. @throws ConfigError */
function configureOrWarn(given: Given): Settings {
  try {
    return configure(given);
  } catch (error) {
    const log = logOfFailure();
    for (const doubt of environmentDoubts()) log.warn(doubt);
    throw error;
  }
}

/** The settings, and the variables for other processes with what was decided here filled in. */
function configure({ app, isGuard = false, command }: Given): Settings {
  const found = readEnvironment();
  const variables = {
    ...found,
    APP: app ?? found.APP,
    GUARD_COMMAND: command ?? found.GUARD_COMMAND,
    // The service manager gave these to this process, not to its workers.
    NOTIFY_SOCKET: undefined,
    WATCHDOG_USEC: undefined,
    LISTEN_FDS: undefined,
  };
  // A program may have an APP of its own.
  const config = parseConfig(isGuard ? { ...variables, APP: undefined } : variables);
  if (isGuard && config.guardCommand === undefined && config.guardPort === 0)
    throw new ConfigError(['GUARD_COMMAND: want it set, or a command behind guard, got neither']);
  return { config, variables: { ...variables, LOG_FORMAT: formatOf(config.logFormat) } };
}

/** @throws ConfigError when the file names another process that may be a service, or cannot be written */
function claimPidFile(file: string, stateDir: string, log: Logger): void {
  try {
    const named = readPidFile(file);
    if (named.kind === 'unreadable')
      log.warn(`PID file ${file} held no process id, but ${JSON.stringify(named.content)}`);
    if (named.kind === 'pid' && named.pid !== process.pid) {
      const { pid } = named;
      const fate = fateIn(stateDir, pid);
      if (fate === 'alive' || fate === 'unknown') {
        const advice = fate === 'alive' ? '' : ' and may be a service; remove the file if it is none';
        throw new ConfigError([`PID_FILE: ${file} names process ${pid}, which is alive${advice}`]);
      }
      log.warn(
        fate === 'dead'
          ? `PID file ${file} was left by process ${pid}, which is dead`
          : `PID file ${file} was left behind: process ${pid} is something else now`,
      );
    }
    writePidFile(file);
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError([`PID_FILE: want a file that can be written, got "${file}": ${messageOf(error)}`]);
  }
}
