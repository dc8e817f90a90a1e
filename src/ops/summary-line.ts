import type { ShutdownReport } from '../lifecycle/last-shutdown.ts';
import { escapeControl } from '../platform/escape-control.ts';
import { plural } from '../plural.ts';
import type { OpenHold, OpenWork, Status } from './status.ts';

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
  const [hold] = in_flight.holds;
  const held = hold === undefined ? '' : `; held by ${holdLine(hold)}`;
  return `${what}: ${in_flight.count} in flight${left}${blocks}${held}`;
}

/** A hold and its age: `job 17, 4.2 s`. */
export function holdLine({ name, age_ms }: OpenHold): string {
  return `${escapeControl(name)}, ${(age_ms / 1000).toFixed(1)} s`;
}

/** What the service does, in one sentence: `STOPPING - waiting for 2 requests, 21 s left`. */
export function summaryLine(status: Status): string {
  const { state, shutdown, in_flight } = status;
  if (state === 'starting') return 'STARTING - not accepting requests yet';
  if (state === 'stopped') return 'STOPPED';
  const { count } = in_flight;
  const work = workOf(in_flight);
  if (shutdown === null) return `RUNNING - ${reloadProgress(status) ?? `${work} in flight`}`;
  const left = Math.ceil(shutdown.remaining_seconds);
  if (state === 'running') {
    const lock = Math.ceil(shutdown.lock_in_seconds);
    return `LAME DUCK - still serving ${work}, locks in ${lock} s`;
  }
  const what = shutdown.emergency === null ? 'STOPPING' : 'EMERGENCY STOP';
  if (count === 0) return `${what} - nothing in flight any more, leaving`;
  if (left === 0) return `${what} - the time is over, cutting ${work}`;
  return `${what} - waiting for ${work}, ${left} s left`;
}

/** Holds count too, so with one of them it is not only requests: `3 requests and holds (job 17, 4.2 s)`. */
function workOf({ count, holds: [hold] }: OpenWork): string {
  return hold === undefined ? plural(count, 'request') : `${count} requests and holds (${holdLine(hold)})`;
}

/** How a stop ended. */
export function endLine(report: ShutdownReport, { shutdown }: Status): string {
  const { completed, cut, cut_holds, in_flight_at_lock: locked, exit_code } = report;
  const state = shutdown?.emergency?.latched ? 'LATCHED' : 'STOPPED';
  if (cut_holds.length > 0)
    return `${state} - ${plural(cut.length, 'request')} and ${plural(cut_holds.length, 'hold')} cut, ${completed} completed`;
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
  return `${workOf(in_flight)} in flight, generation ${generation} serves, ${old}`;
}
