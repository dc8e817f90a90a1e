import type { ShutdownReport } from '../lifecycle/last-shutdown.ts';
import { escapeControl } from '../platform/escape-control.ts';
import { plural } from '../plural.ts';
import type { Status } from './status.ts';

/** What a drain waits for, in one line: `Draining: 3 in flight, 12 s left; oldest GET /report, 4.2 s`. */
export function drainLine({ state, in_flight, shutdown }: Status): string {
  if (state === 'stopped') return 'Leaving: nothing in flight';
  const what = state === 'stopping' ? 'Draining' : shutdown === null ? `Service ${state}` : 'Lame duck';
  const left = shutdown === null ? '' : `, ${Math.ceil(shutdown.remaining_seconds)} s left`;
  const [oldest] = in_flight.oldest;
  const blocks =
    oldest === undefined
      ? ''
      : `; oldest ${oldest.method} ${escapeControl(oldest.path)}, ${(oldest.age_ms / 1000).toFixed(1)} s`;
  return `${what}: ${in_flight.count} in flight${left}${blocks}`;
}

/** What the service does, in one sentence: `STOPPING - waiting for 2 requests, 21 s left`. */
export function summaryLine(status: Status): string {
  const { state, shutdown, in_flight } = status;
  if (state === 'starting') return 'STARTING - not accepting requests yet';
  if (state === 'stopped') return 'STOPPED';
  const { count } = in_flight;
  if (shutdown === null)
    return `RUNNING - ${reloadProgress(status) ?? `${plural(count, 'request')} in flight`}`;
  const left = Math.ceil(shutdown.remaining_seconds);
  if (state === 'running') {
    const lock = Math.ceil(shutdown.lock_in_seconds);
    return `LAME DUCK - still serving ${plural(count, 'request')}, locks in ${lock} s`;
  }
  const what = shutdown.emergency === null ? 'STOPPING' : 'EMERGENCY STOP';
  if (count === 0) return `${what} - nothing in flight any more, leaving`;
  if (left === 0) return `${what} - the time is over, cutting ${plural(count, 'request')}`;
  return `${what} - waiting for ${plural(count, 'request')}, ${left} s left`;
}

/** How a stop ended. */
export function endLine(report: ShutdownReport, { shutdown }: Status): string {
  const { completed, cut, in_flight_at_lock: locked, exit_code } = report;
  const state = shutdown?.emergency?.latched ? 'LATCHED' : 'STOPPED';
  if (cut.length > 0) return `${state} - ${plural(cut.length, 'request')} cut, ${completed} completed`;
  if (exit_code !== 0) return `${state} - with exit code ${exit_code}`;
  return `${state} - cleanly, ${locked === 0 ? 'nothing was in flight' : `${plural(completed, 'request')} completed, none cut`}`;
}

function reloadProgress({ reload, workers, program, generation, in_flight }: Status): string | undefined {
  const now = workers ?? [];
  if (reload !== null && program !== null)
    return program.holding ? 'reloading, requests are held' : 'reloading, a new instance is starting';
  if (reload !== null) {
    const coming = now.filter((worker) => worker.generation > generation);
    const ready = coming.filter(({ state }) => state === 'serving').length;
    return `reloading, ${ready} of ${plural(coming.length, 'new worker')} ready`;
  }
  const retiring = now.filter(({ state }) => state === 'retiring').length;
  if (retiring === 0) return undefined;
  const old = `${plural(retiring, 'old worker')} retiring`;
  return `${plural(in_flight.count, 'request')} in flight, generation ${generation} serves, ${old}`;
}
