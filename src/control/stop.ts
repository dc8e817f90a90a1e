import type { Logger } from 'pino';
import { ExitCode } from '../exit-code.ts';
import type { CutHold, CutRequest, ShutdownReport } from '../lifecycle/last-shutdown.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import type { OpenHold } from '../ops/status.ts';
import { seconds, within } from '../platform/deadline.ts';
import { escapeControl } from '../platform/escape-control.ts';
import { plural } from '../plural.ts';
import { version } from '../version.ts';
import type { Backend } from './backend.ts';
import { FLUSH_MS } from './stop-budget.ts';

/** The least that the application's signal handlers, and then its stop(), get, even past the deadline. */
export const LEAST_STOP_MS = 1_000;
/** The least that closing the audit log gets: a disk that does not answer must not delay the exit longer. */
const LEAST_CLOSE_MS = 1_000;

export interface StopParts {
  readonly lifecycle: Lifecycle;
  readonly backend: Backend;
  readonly log: Logger;
  /** Requests cut so far. The backend's host adds those that it hears of. */
  readonly cut: CutRequest[];
  /** Called with the number of requests in flight at the lock. */
  readonly locked: (inFlight: number) => void;
  /** Resolves to whether all of the audit log is on disk. */
  readonly closeAudit: () => Promise<boolean>;
}

/** Durations in milliseconds. */
export interface StopPlan {
  readonly reason: string;
  /** The beginning of the first line in the log. */
  readonly announcement: string;
  readonly delayMs: number;
  readonly timeoutMs: number;
  readonly failSafe: boolean;
  /** What a stop that cuts nothing ends with. Read at the end, because a later order may be graver. */
  readonly exitCode: () => ExitCode;
  /** Resolves when the lame duck has to end at once. */
  readonly lockNow: Promise<void>;
  /** Resolves when what is in flight has to be cut at once. */
  readonly cutNow: Promise<void>;
}

/** The whole stop, from top to bottom, with any backend. */
export async function stop(parts: StopParts, plan: StopPlan): Promise<ShutdownReport> {
  const { lifecycle, backend, log, cut } = parts;
  const { reason, delayMs, timeoutMs, failSafe } = plan;
  const orderedAt = new Date();
  const orderedMs = performance.now();
  log.info(
    { reason },
    `${plan.announcement} Initiating graceful shutdown${failSafe ? ' (fail-safe)' : ''}...`,
  );
  const order = (lockAtMs: number) => ({ reason, orderedAt, lockAtMs, deadlineMs: lockAtMs + timeoutMs });
  backend.stopOrdered(lifecycle.orderStop(order(orderedMs + delayMs)));
  if (delayMs > 0 && lifecycle.state === 'running') {
    log.info(`Lame duck for ${seconds(delayMs)}s: health checks fail, requests are still served`);
    await within(delayMs, Promise.race([plan.lockNow, plan.cutNow]));
  }

  // The lock: the gate reads the state. Without a lame duck this is still the turn of the loop of the signal.
  const lockedMs = performance.now();
  const { deadlineMs } = lifecycle.orderStop(order(lockedMs));
  lifecycle.lock();
  const { count: inFlightAtLock, holds } = await backend.lock(order(lockedMs));
  parts.locked(inFlightAtLock);
  log.warn(
    { in_flight: inFlightAtLock },
    `Service state: STOPPING - ${failSafe ? 'Rejecting new requests (fail-safe mode). ' : ''}` +
      `${inFlightAtLock} in-flight requests remaining.`,
  );
  if (inFlightAtLock > 0) {
    log.info(`Waiting up to ${seconds(timeoutMs)}s for ${inFlightAtLock} in-flight requests to complete...`);
    if (holds.length > 0) log.info({ holds }, `Held in flight: ${holds.map(heldFor).join(', ')}`);
  }

  // The drain, then the quiet tail. Without fail-safe the tail may admit requests, which are waited for like the rest.
  let forced = false;
  const cutHolds: CutHold[] = [];
  do {
    if (!(await drained())) forced = await force();
  } while ((await backend.drainAcceptQueue()) > 0 && !forced);

  // The end: the application, what is left of the connections, the audit log.
  const leftMs = deadlineMs - performance.now();
  const closeByMs = performance.now() + Math.max(forced ? 0 : leftMs, FLUSH_MS);
  const closed = await backend.close({
    drained: !forced,
    stopMs: Math.max(leftMs, LEAST_STOP_MS),
    closeMs: closeByMs - performance.now() - LEAST_CLOSE_MS,
  });
  cut.push(...closed.cut);
  logCut(log, closed.cut);
  lifecycle.to('stopped');
  const kept = await closeAudit(parts, Math.max(closeByMs - performance.now(), LEAST_CLOSE_MS));

  const exitCode = exitCodeOf(kept, plan.exitCode(), forced || cut.length > 0, closed.exitCode);
  if (exitCode === ExitCode.Ok) log.info('Service state: STOPPED - All requests completed gracefully');
  return {
    unclean: false,
    pid: process.pid,
    version,
    reason,
    started_at: orderedAt.toISOString(),
    stopped_at: new Date().toISOString(),
    duration_seconds: Math.round(performance.now() - orderedMs) / 1000,
    in_flight_at_lock: inFlightAtLock,
    completed: closed.completed,
    aborted: closed.aborted,
    closed: closed.closed,
    cut,
    cut_holds: cutHolds,
    rejected: closed.refused,
    exit_code: exitCode,
  };

  /** False at the deadline, or when a cut was ordered. */
  async function drained(): Promise<boolean> {
    let idle = false;
    const done = backend.drained().then(() => {
      idle = true;
    });
    await within(deadlineMs - performance.now(), Promise.race([done, plan.cutNow]));
    return idle;
  }

  /** Cuts what is in flight, by name. @returns whether there was anything left to cut */
  async function force(): Promise<boolean> {
    const early = deadlineMs - performance.now() > 1;
    const { requests, holds, unnamed } = await backend.cut(
      early ? 'the stop was forced' : 'the time is over',
    );
    const count = requests.length + holds.length + unnamed;
    if (count === 0) return false;
    log.warn(
      { in_flight: count },
      early
        ? `Shutdown forced: ${plural(count, 'request')} still in flight after ${seconds(performance.now() - lockedMs)}s`
        : `Shutdown timeout: ${count} requests still in-flight after ${seconds(timeoutMs)}s`,
    );
    cut.push(...requests);
    cutHolds.push(...holds);
    logCut(log, requests, holds);
    if (unnamed > 0)
      log.warn(`Cut ${plural(unnamed, 'piece')} of work that the application still held in flight`);
    log.error('Force shutdown: In-flight requests did not complete in time');
    return true;
  }
}

/** The name as the application gave it, and its age: `"job 17" (2.1s)`. */
function heldFor({ name, age_ms }: OpenHold): string {
  return `"${escapeControl(name)}" (${seconds(age_ms)}s)`;
}

/** Where its handler was, as far as that is known: `route /orders/:id; holding "the card"; waiting at charge (…)`. */
function detailsOf({ path, route, hold, waits_at }: CutRequest): string {
  const at = waits_at?.length === 0 ? 'for no promise' : `at ${waits_at?.join(', ')}`;
  return [
    ...(route === undefined || route === path ? [] : [`route ${route}`]),
    ...(hold === undefined ? [] : [`holding "${escapeControl(hold)}"`]),
    ...(waits_at === undefined ? [] : [`waiting ${at}`]),
  ].join('; ');
}

/** Logs a line for each request that was cut, another for what is known of its handler, and one for each hold. */
export function logCut(log: Logger, requests: readonly CutRequest[], holds: readonly CutHold[] = []): void {
  for (const request of requests) {
    const { id, method, path, age_ms, phase, reason, route, hold } = request;
    log.warn(
      { request: id, method, path, age_ms, phase, route, hold },
      `Cut in-flight request: ${method} ${path} after ${seconds(age_ms)}s (${phase}), because ${reason}`,
    );
    const more = detailsOf(request);
    if (more !== '') log.warn({ request: id }, `Where ${method} ${path} was: ${more}`);
  }
  for (const hold of holds) {
    const { name, age_ms, request, reason } = hold;
    log.warn(
      { hold: name, age_ms, request: request ?? undefined },
      `Cut held work: ${heldFor(hold)}, because ${reason}`,
    );
  }
}

/** @returns whether all of it is on disk */
async function closeAudit({ closeAudit, log }: StopParts, ms: number): Promise<boolean> {
  let kept = false;
  const closed = closeAudit().then((whole) => {
    kept = whole;
  });
  await within(ms, closed).catch(() => false);
  if (!kept) log.error('The audit log could not be written to its end');
  return kept;
}

/** The gravest of what went wrong: lost records, then what the stop was ordered for, then what it has cut. */
function exitCodeOf(kept: boolean, ordered: ExitCode, cut: boolean, closed: ExitCode): ExitCode {
  if (!kept || closed === ExitCode.AuditLost) return ExitCode.AuditLost;
  if (ordered !== ExitCode.Ok) return ordered;
  return cut ? ExitCode.Forced : closed;
}
