import { setTimeout as delay } from 'node:timers/promises';
import { ExitCode } from '../exit-code.ts';
import { readReloadOutcome, reloadLine } from '../lifecycle/last-reload.ts';
import { isAlive } from '../platform/process-identity.ts';
import { command, fail, say } from './command.ts';
import { findService } from './find-service.ts';
import { controlConfig } from './operator.ts';

const HELP = `usage: master-agent reload

Makes the running service reload, and waits for the outcome. With WORKERS the new code and settings serve when this
ends with 0; a broken version leaves the old one serving and ends with 1. Without WORKERS it reloads settings alone.

  --help   this

exit: 0 reloaded, 1 refused, or there is no service; 78 bad configuration
`;

const LOOK_MS = 50;
/** What a shell shows for a process that SIGTERM has ended. */
const TERMINATED = 143;
/** How long to wait beyond what new workers may take to start: another reload may come first. */
const PATIENCE_MS = 10_000;

export function run(args: readonly string[]): Promise<number> {
  return command(HELP, args, {}, reload);
}

async function reload(): Promise<number> {
  const config = controlConfig();
  const { stateDir, startTimeoutMs } = config;
  const found = await findService(config);
  if (found.kind === 'none') return fail(`No service to reload: none has left word of itself in ${stateDir}`);
  if (found.kind === 'unknown') return fail(`Not reloaded: ${found.why}`);
  const { pid } = found;
  // A stop that overtakes a reload makes systemd end its ExecReload with SIGTERM. That must not mark the unit as
  // failed, so it ends with 0 there; elsewhere SIGTERM ends the command as usual.
  let overtaken = false;
  process.once('SIGTERM', () => {
    overtaken = true;
  });
  const signalledMs = Date.now();
  process.kill(pid, 'SIGHUP');
  const patientMs = performance.now() + 2 * startTimeoutMs + PATIENCE_MS;
  while (performance.now() < patientMs) {
    if (overtaken) {
      fail('Told to stop waiting for the reload');
      return process.env.INVOCATION_ID === undefined ? TERMINATED : ExitCode.Ok;
    }
    const outcome = readReloadOutcome(stateDir);
    if (outcome?.pid === pid && outcome.started_ms >= signalledMs) {
      const line = reloadLine(outcome, ` in ${outcome.duration_ms} ms`);
      if (outcome.outcome === 'refused') return fail(line);
      say(line);
      return ExitCode.Ok;
    }
    if (!isAlive(pid)) return fail(`Process ${pid} ended without having reloaded`);
    await delay(LOOK_MS);
  }
  return fail(`Process ${pid} has not told how the reload went`);
}
