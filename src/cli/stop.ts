import { rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { hasCode, messageOf } from '../error.ts';
import { ExitCode } from '../exit-code.ts';
import { readReport, reportFile } from '../lifecycle/last-shutdown.ts';
import { escapeControl } from '../ops/escape-control.ts';
import { drainLine, drainOf } from '../ops/status.ts';
import { isAlive } from '../platform/process-identity.ts';
import { type Found, findService } from './find-service.ts';
import { complain } from './help.ts';
import { controlConfig, fetchStatus, opsServer } from './operator.ts';
import { Progress } from './progress.ts';

const HELP = `usage: master-agent stop

Stops the service that PID_FILE names (default: master-agent.pid in STATE_DIR), and shows the drain while it lasts.

  --help   this

exit: as the service did (0 everything completed, 1 requests were cut); 0 when there was nothing to stop;
      1 when it ended without a report, is still there past its deadline, or cannot be told from another process;
      78 bad configuration
`;

const LOOK_MS = 100;
/** Past its deadline by so much, a service is stuck. */
const PATIENCE_MS = 15_000;

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
  if (found.kind === 'none') {
    const { why, staleFile } = found;
    say(`Nothing to stop: ${why}${staleFile === undefined ? '' : ' (removed)'}`);
    if (staleFile !== undefined) rmSync(staleFile, { force: true });
    return ExitCode.Ok;
  }
  if (found.kind === 'unknown') {
    say(`Not stopped: ${found.why}`);
    return 1;
  }
  const { pid } = found;
  // Looked up first: the note of the ops server's address goes when the service does.
  const url = opsServer(config);
  say(`Stopping process ${pid}`);
  try {
    process.kill(pid, 'SIGTERM');
  } catch (error) {
    // Gone in this very moment: then its report is there.
    if (!hasCode(error, 'ESRCH'))
      return complain(`PID_FILE: want a process this user may stop, got ${pid}: ${messageOf(error)}`);
  }
  const stuckMs = performance.now() + config.shutdownDelayMs + config.shutdownTimeoutMs + PATIENCE_MS;
  const progress = new Progress();
  while (isAlive(pid)) {
    if (performance.now() > stuckMs) {
      progress.end();
      say(
        `Process ${pid} is still there past its deadline. See its log; the last resort is: kill -KILL ${pid}`,
      );
      return 1;
    }
    await delay(LOOK_MS);
    if (url !== undefined)
      await fetchStatus(url).then(
        (status) => progress.show(drainLine(drainOf(status))),
        () => undefined,
      );
  }
  progress.end();
  return conclude(pid, config.stateDir);
}

function conclude(pid: number, stateDir: string): number {
  const report = readReport(reportFile(stateDir));
  if (report?.pid !== pid) {
    say(`Process ${pid} is gone, but left no report in ${stateDir}`);
    return 1;
  }
  const { completed, cut, rejected, duration_seconds, exit_code } = report;
  say(
    `Stopped in ${duration_seconds} s, exit ${exit_code}: ${completed} in flight completed, ${cut.length} cut, ` +
      `${rejected} refused with 503`,
  );
  for (const { method, path, age_ms } of cut)
    say(`  cut: ${method} ${escapeControl(path)} after ${(age_ms / 1000).toFixed(1)} s`);
  return exit_code;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
