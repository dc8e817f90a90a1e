import { parseArgs } from 'node:util';
import { messageOf } from '../error.ts';
import { ExitCode } from '../lifecycle/exit-code.ts';
import { drainLine, drainOf, type Status } from '../routes/status.ts';
import { complain } from './help.ts';
import { controlConfig, fetchStatus, operatorDoor } from './operator.ts';

const HELP = `usage: master-agent status [--json]

Asks the operator's door what the service is doing and prints it.

  --json   the answer of GET /status as it came
  --help   this

exit: 0 it answered, 1 nobody answered there, 78 bad configuration
`;

export async function run(args: readonly string[]): Promise<number> {
  let json: boolean | undefined;
  let door: string | undefined;
  try {
    const { values } = parseArgs({
      args: [...args],
      options: { json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    });
    if (values.help) {
      process.stdout.write(HELP);
      return ExitCode.Ok;
    }
    json = values.json;
    door = operatorDoor(controlConfig());
  } catch (error) {
    return complain(error);
  }
  if (door === undefined) return complain('OPS_PORT: want it on to ask for the status, got off');
  try {
    const status = await fetchStatus(door);
    process.stdout.write(json ? `${JSON.stringify(status)}\n` : render(status));
    return ExitCode.Ok;
  } catch (error) {
    process.stderr.write(`No answer from the operator's door at ${door}: ${messageOf(error)}\n`);
    return 1;
  }
}

function render(status: Status): string {
  const { connections, rejected, last_shutdown: last } = status;
  const lines = [
    `${status.service} ${status.version}, process ${status.pid}: ${status.state} since ${status.since}`,
    drainLine(drainOf(status)),
    `connections: ${connections.open} open, ${connections.idle} idle; refused: ${rejected.total}`,
    ...status.in_flight.oldest.map(
      ({ id, method, path, age_ms, phase }) =>
        `  ${(age_ms / 1000).toFixed(1).padStart(8)} s  ${method} ${path}  ${phase}  ${id}`,
    ),
  ];
  for (const worker of status.workers ?? []) {
    lines.push(
      `  worker ${worker.pid}: ${worker.state}, generation ${worker.generation}, ${worker.in_flight} in flight, ` +
        `${worker.connections} connections`,
    );
  }
  if (status.last_reload !== null) {
    const { outcome, reason, duration_ms } = status.last_reload;
    lines.push(`last reload: ${outcome} in ${duration_ms} ms${reason === '' ? '' : `: ${reason}`}`);
  }
  if (last?.unclean) lines.push(`last run: process ${last.pid} ended without a shutdown`);
  else if (last) {
    lines.push(
      `last shutdown: ${last.reason}, ${last.stopped_at}, ${last.duration_seconds} s, ` +
        `${last.completed} completed, ${last.cut.length} cut, ${last.rejected} refused, exit ${last.exit_code}`,
    );
  }
  return `${lines.join('\n')}\n`;
}
