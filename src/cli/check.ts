import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { dirname, relative } from 'node:path';
import { assertAppFile, loadApp } from '../app/app.ts';
import { assertProgram } from '../backends/program/launch.ts';
import { environmentDoubts, readEnvironment } from '../config/environment.ts';
import { type Config, ConfigError, checkAll, parseConfig, wordsOf } from '../config/settings.ts';
import { checkStopBudget } from '../control/stop-budget.ts';
import { messageOf } from '../error.ts';
import { ExitCode } from '../exit-code.ts';
import { readLatch, UNLATCH } from '../lifecycle/latch.ts';
import { seconds, within } from '../platform/deadline.ts';
import { readAuditKey, readToken } from '../platform/secrets.ts';
import { command, say } from './command.ts';
import { complain } from './help.ts';

const HELP = `usage: master-agent check [APP]

Reads the settings, the files they name and the application, and serves nothing. It imports the application and looks
at its shape; it does not call start(). Nothing is written, no port is opened, and a service may run meanwhile. Run it
as the user and in the directory of the service.

  --help   this

exit: 0 it can be served, though there may be warnings; 78 it cannot, and why
`;

export function run(args: readonly string[]): Promise<number> {
  return command(HELP, args, {}, check, 'APP');
}

async function check(_: unknown, given: string | undefined): Promise<number> {
  const warn = (line: string): unknown => process.stderr.write(`warning: ${line}\n`);
  environmentDoubts().map(warn);
  const variables = readEnvironment();
  const config = parseConfig({ ...variables, APP: given ?? variables.APP });
  checkStopBudget(config, { warn });
  const { app, guardCommand, stateDir, auditLog, pidFile } = config;
  if (readLatch(stateDir) !== undefined)
    warn(
      `${stateDir} is latched by an emergency shutdown: a start ends with ${ExitCode.Latched} before ${UNLATCH}`,
    );
  await checkAll([
    () => readToken(config),
    () => readAuditKey(config),
    () => assertUsable('STATE_DIR', nearest(stateDir)),
    () => assertUsable('AUDIT_LOG', auditLog === 'off' ? undefined : placeOf(config, auditLog)),
    () => assertUsable('PID_FILE', placeOf(config, pidFile)),
    () => app === undefined || checkApp(app, config.startTimeoutMs),
    () => guardCommand === undefined || assertProgram(wordsOf(guardCommand)[0] ?? '', variables.PATH),
  ]);
  const what = app !== undefined ? `the application ${app}` : 'no application';
  say(`OK: settings, files and ${guardCommand === undefined ? what : 'the program to guard'}`);
  return ExitCode.Ok;
}

/** The directory of a file, unless that is STATE_DIR, which is made at the start. */
function placeOf({ stateDir }: Config, file: string | undefined): string | undefined {
  return file === undefined || relative(stateDir, dirname(file)) === '' ? undefined : dirname(file);
}

/** The directory, or what it would be made in. */
function nearest(directory: string): string {
  return existsSync(directory) || dirname(directory) === directory ? directory : nearest(dirname(directory));
}

/** @throws ConfigError when it is no directory that this user can write to */
function assertUsable(setting: string, directory: string | undefined): void {
  if (directory === undefined) return;
  try {
    accessSync(directory, constants.W_OK);
    if (!statSync(directory).isDirectory()) throw new Error('it is a file');
  } catch (error) {
    const line = `${setting}: want a directory that can be written, got "${directory}": ${messageOf(error)}`;
    throw new ConfigError([line], { cause: error });
  }
}

/** @throws ConfigError also for what ends a start with 70 */
async function checkApp(path: string, timeoutMs: number): Promise<void> {
  const ended = (): void => void complain(`APP: ${path} ended the process when it was imported`);
  process.once('exit', ended);
  try {
    assertAppFile(path);
    if (await within(timeoutMs, loadApp(path))) return;
  } catch (error) {
    throw new ConfigError([messageOf(error)], { cause: error });
  } finally {
    process.off('exit', ended);
  }
  throw new ConfigError([`APP: ${path} was not imported after ${seconds(timeoutMs)}s (START_TIMEOUT)`]);
}
