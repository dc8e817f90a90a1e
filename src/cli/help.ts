import { ConfigError, SETTINGS } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { ExitCode } from '../exit-code.ts';

const USAGE = `master-agent: an HTTP service that locks like a safe

usage: master-agent [serve] [APP]   serve the application in the module APP, in the foreground
       master-agent guard COMMAND   the same for a program in any language, behind the gate
       master-agent check [APP]     read settings, files and the application without serving; 78 when one is wrong
       master-agent stop            stop it and show the drain; ends with the exit code of the service
       master-agent reload          new settings, with WORKERS new code too; 1 when it was refused
       master-agent reopen          continue the audit log in a new file (after a rename by logrotate)
       master-agent status          what the ops server tells; --watch goes on, --json is for programs
       master-agent verify-audit    walk the seals of the audit log
       master-agent emergency       lock, latch and stop it: it stays down until it is unlatched; --reason TEXT
       master-agent unlatch         let the service start again after an emergency shutdown
       master-agent conformance     judge how any HTTP server stops; --cmd COMMAND starts it
       master-agent help            this; COMMAND --help for one command

signals  SIGTERM, SIGINT  stop: lock, finish what is in flight, leave (a second SIGINT forces the exit)
         SIGHUP           reload: the settings marked * below; with WORKERS all but addresses, and the code
         SIGUSR2          reopen the audit log, and nothing else

exit     0 stopped, everything in flight completed   1 forced: requests were cut   70 internal error or crash
         74 the audit log could not be written   75 latched by an emergency shutdown   78 bad configuration

settings, from the environment and from .env in the working directory, or from the file that SETTINGS_FILE names in the
environment: that one is read anew at each reload and wins over the environment, and .env is then not read:
`;

export function run(): Promise<number> {
  process.stdout.write(helpText());
  return Promise.resolve(ExitCode.Ok);
}

export function helpText(): string {
  const rows = SETTINGS.map(({ name, fallback, unit = '', help, change }) => {
    const value = fallback === '' ? 'unset' : `${fallback}${unit === '' ? '' : ` ${unit}`}`;
    return `  ${`${name}${change === 'reload' ? '*' : ''}`.padEnd(25)}${value.padEnd(17)}${help}`;
  });
  return `${USAGE}${rows.join('\n')}\n`;
}

/** Reports a command line or a configuration that cannot be used. @returns the exit code for it */
export function complain(problem: unknown): number {
  const lines =
    problem instanceof ConfigError ? problem.mistakes : [`${messageOf(problem)} (see master-agent --help)`];
  for (const line of lines) process.stderr.write(`master-agent: ${line}\n`);
  return ExitCode.Config;
}
