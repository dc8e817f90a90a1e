import { setTimeout as delay } from 'node:timers/promises';
import type { Config } from '../config/settings.ts';
import { ExitCode } from '../exit-code.ts';
import type { Status } from '../ops/status.ts';
import { drainLine } from '../ops/summary-line.ts';
import { escapeControl } from '../platform/escape-control.ts';
import { plural } from '../plural.ts';
import { command, fail, say } from './command.ts';
import { follow } from './follow.ts';
import { controlConfig, fetchStatus, noAnswer, opsServer } from './operator.ts';
import { Progress } from './progress.ts';

const HELP = `usage: master-agent status [--json] [--watch]

Asks the ops server what the service is doing and prints it.

  --json   the answer of GET /status as it came
  --watch  goes on showing it until Ctrl-C: redrawn in place on a terminal, elsewhere a line when something has
           changed, at most one a second; with --json a line of JSON each time. Waits for a service that is gone
  --help   this

exit: 0 it answered, or --watch was ended; 1 nobody answered there; 78 bad configuration
`;

const RETRY_MS = 1_000;

export function run(args: readonly string[]): Promise<number> {
  const options = { json: { type: 'boolean' }, watch: { type: 'boolean' } } as const;
  return command(HELP, args, options, async ({ json, watch }) => {
    const config = controlConfig();
    const url = opsServer(config);
    if (url === undefined) throw new Error('OPS_PORT is off: there is no ops server to ask');
    if (watch) return keepShowing(config, json === true);
    try {
      const status = await fetchStatus(url);
      say(json ? JSON.stringify(status) : render(status));
      return ExitCode.Ok;
    } catch (error) {
      return fail(noAnswer(url, error));
    }
  });
}

/** Shows each status until a signal ends it. Waits for a service that is gone, at whatever address it comes back. */
async function keepShowing(config: Config, json: boolean): Promise<number> {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort());
  const progress = new Progress();
  let gone: Date | undefined;
  while (!stop.signal.aborted) {
    const url = opsServer(config) ?? '';
    await follow(url, stop.signal, ({ headline, status, report }) => {
      gone = undefined;
      if (json) return say(JSON.stringify(status));
      // The line that `stop` shows, and at the end how the service has ended.
      const line = report === undefined ? drainLine(status) : headline;
      progress.show(line, [headline, ...render(status).split('\n')]);
    }).catch(() => undefined);
    if (stop.signal.aborted) break;
    gone ??= new Date();
    if (!json)
      progress.show(`No answer from the ops server at ${url} since ${gone.toLocaleTimeString('en-GB')}`);
    await delay(RETRY_MS, undefined, { signal: stop.signal }).catch(() => undefined);
  }
  progress.end('kept');
  return ExitCode.Ok;
}

function render(status: Status): string {
  const { connections, rejected, last_shutdown: last } = status;
  const lines = [
    `${status.service} ${status.version}, process ${status.pid}: ${status.state} since ${status.since}`,
    drainLine(status),
    `connections: ${connections.open} open, ${connections.idle} idle; refused: ${rejected.total}`,
    ...status.in_flight.oldest.map(
      ({ id, method, path, age_ms, phase }) =>
        `  ${(age_ms / 1000).toFixed(1).padStart(8)} s  ${method} ${escapeControl(path)}  ${phase}  ${id}`,
    ),
    ...status.in_flight.holds.map(({ name, age_ms, request }) =>
      `  ${(age_ms / 1000).toFixed(1).padStart(8)} s  hold ${escapeControl(name)}  ${request ?? ''}`.trimEnd(),
    ),
  ];
  for (const worker of status.workers ?? []) {
    lines.push(
      `  worker ${worker.pid}: ${worker.state}, generation ${worker.generation}, ${worker.in_flight} in flight, ` +
        plural(worker.connections, 'connection'),
    );
  }
  const { program } = status;
  if (program !== null) {
    const { ended, unhealthy, deaf } = program.restarts;
    lines.push(
      `program: ${escapeControl(program.command)}; replaced: ${ended} ended, ${unhealthy} unhealthy, ${deaf} deaf` +
        `${program.holding ? '; requests are held' : ''}`,
    );
    for (const { pid, state, generation, in_flight } of program.instances)
      lines.push(`  instance ${pid}: ${state}, generation ${generation}, ${in_flight} in flight`);
  }
  if (status.last_reload !== null) {
    const { outcome, reason, duration_ms } = status.last_reload;
    lines.push(`last reload: ${outcome} in ${duration_ms} ms${reason === '' ? '' : `: ${reason}`}`);
  }
  if (last?.unclean) lines.push(`last run: process ${last.pid} ended without a shutdown`);
  else if (last) {
    lines.push(
      `last shutdown: ${last.reason}, ${last.stopped_at}, ${last.duration_seconds} s, ` +
        `${last.completed} completed, ${last.cut.length + last.cut_holds.length} cut, ${last.rejected} refused, exit ${last.exit_code}`,
    );
  }
  return lines.join('\n');
}
