import { rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { hasCode, messageOf } from '../error.ts';
import { ExitCode } from '../exit-code.ts';
import { readReport, reportFile } from '../lifecycle/last-shutdown.ts';
import { drainLine } from '../ops/summary-line.ts';
import { escapeControl } from '../platform/escape-control.ts';
import { isAlive } from '../platform/process-identity.ts';
import { command, say } from './command.ts';
import { findService } from './find-service.ts';
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
/** A service that is still there this long after its deadline is stuck. */
const PATIENCE_MS = 15_000;

export function run(args: readonly string[]): Promise<number> {
  return command(HELP, args, {}, stop);
}

async function stop(): Promise<number> {
  const config = controlConfig();
  const found = await findService(config);
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
  // Before the signal: the note of this address goes when the service does.
  const url = opsServer(config);
  say(`Stopping process ${pid}`);
  try {
    process.kill(pid, 'SIGTERM');
  } catch (error) {
    // ESRCH: it has just ended, and has left its report.
    if (!hasCode(error, 'ESRCH'))
      throw new Error(`Process ${pid} cannot be stopped by this user: ${messageOf(error)}`);
  }
  const stuckMs = performance.now() + config.shutdownDelayMs + config.shutdownTimeoutMs + PATIENCE_MS;
  const progress = new Progress();
  while (isAlive(pid) && performance.now() < stuckMs) {
    await delay(LOOK_MS);
    const status = url === undefined ? undefined : await fetchStatus(url).catch(() => undefined);
    if (status !== undefined) progress.show(drainLine(status));
  }
  progress.end();
  if (!isAlive(pid)) return tellHowItEnded(pid, config.stateDir);
  say(`Process ${pid} is still there past its deadline. See its log; the last resort is: kill -KILL ${pid}`);
  return 1;
}

function tellHowItEnded(pid: number, stateDir: string): number {
  const report = readReport(reportFile(stateDir));
  if (report?.pid !== pid) {
    say(`Process ${pid} is gone, but left no report in ${stateDir}`);
    return 1;
  }
  const { completed, cut, cut_holds, rejected, duration_seconds, exit_code } = report;
  say(
    `Stopped in ${duration_seconds} s, exit ${exit_code}: ${completed} in flight completed, ${cut.length + cut_holds.length} cut, ` +
      `${rejected} refused with 503`,
  );
  for (const { method, path, age_ms } of cut)
    say(`  cut: ${method} ${escapeControl(path)} after ${(age_ms / 1000).toFixed(1)} s`);
  for (const { name, age_ms } of cut_holds)
    say(`  cut: hold ${escapeControl(name)} after ${(age_ms / 1000).toFixed(1)} s`);
  return exit_code;
}
