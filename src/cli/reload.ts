import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { ExitCode } from '../exit-code.ts';
import { readReloadOutcome } from '../lifecycle/last-reload.ts';
import { isAlive } from '../platform/process-identity.ts';
import { type Found, findService } from './find-service.ts';
import { complain } from './help.ts';
import { controlConfig } from './operator.ts';

const HELP = `usage: master-agent reload

Makes the running service reload, and waits for the outcome. With WORKERS the new code and settings serve when this
ends with 0; a broken version leaves the old one serving and ends with 1.

  --help   this

exit: 0 reloaded, 1 refused, or there is no service; 78 bad configuration
`;

const LOOK_MS = 50;
/** What a shell shows of a process that SIGTERM has ended. */
const TERMINATED = 143;
/** Beyond what the workers may take to be ready: another reload may be under way, which comes first. */
const PATIENCE_MS = 10_000;

export async function run(args: readonly string[]): Promise<number> {
  let config: ReturnType<typeof controlConfig>;
  let found: Found;
  try {
    const { values } = parseArgs({ args: [...args], options: { help: { type: 'boolean', short: 'h' } } });
    if (values.help) {
      process.stdout.write(HELP);
      return ExitCode.Ok;
    }
    config = controlConfig();
    found = await findService(config);
  } catch (error) {
    return complain(error);
  }
  const { stateDir, startTimeoutMs } = config;
  if (found.kind !== 'running') {
    process.stderr.write(
      found.kind === 'none'
        ? `No service to reload: none has left word of itself in ${stateDir}\n`
        : `Not reloaded: ${found.why}\n`,
    );
    return 1;
  }
  const { pid } = found;
  // So the service manager ends its ExecReload when a stop overtakes it. That is no failure, and the unit must not
  // be shown as failed for it; to anybody else it is the end by a signal that was asked for.
  let overtaken = false;
  process.once('SIGTERM', () => {
    overtaken = true;
  });
  const signalledMs = Date.now();
  process.kill(pid, 'SIGHUP');
  const patientMs = performance.now() + 2 * startTimeoutMs + PATIENCE_MS;
  while (performance.now() < patientMs) {
    if (overtaken) {
      process.stderr.write('Told to stop waiting for the reload\n');
      return process.env.INVOCATION_ID === undefined ? TERMINATED : ExitCode.Ok;
    }
    const outcome = readReloadOutcome(stateDir);
    if (outcome?.pid === pid && outcome.started_ms >= signalledMs) {
      if (outcome.outcome === 'done') {
        process.stdout.write(
          `Reloaded in ${outcome.duration_ms} ms: generation ${outcome.generation} serves\n`,
        );
        return ExitCode.Ok;
      }
      process.stderr.write(
        `Reload refused, generation ${outcome.generation} goes on serving: ${outcome.reason}\n`,
      );
      return 1;
    }
    if (!isAlive(pid)) {
      process.stderr.write(`Process ${pid} ended without having reloaded\n`);
      return 1;
    }
    await delay(LOOK_MS);
  }
  process.stderr.write(`Process ${pid} has not told how the reload went\n`);
  return 1;
}
