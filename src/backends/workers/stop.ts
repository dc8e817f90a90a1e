import type { Server } from 'node:net';
import type { Logger } from 'pino';
import { ExitCode } from '../../exit-code.ts';
import type { CutRequest, ShutdownReport } from '../../lifecycle/last-shutdown.ts';
import type { Lifecycle } from '../../lifecycle/lifecycle.ts';
import { drainLine } from '../../ops/status.ts';
import { afterReading, seconds, within } from '../../platform/deadline.ts';
import { stopAccepting } from '../../platform/listen.ts';
import type { Notifier } from '../../platform/systemd.ts';
import { version } from '../../version.ts';
import { BEAT_MS } from './messages.ts';
import type { WorkerHandle } from './worker-handle.ts';
import type { WorkerPool } from './worker-pool.ts';

/** How long workers may take to say how much is in flight before it is told without them. */
const COUNT_MS = 250;
/** What a worker gets beyond the deadline to cut by itself; one that has not then is blocked. */
const CUT_GRACE_MS = 500;
/** What a worker gets to leave once nothing is in flight: its application's stop(), its audit log. */
const LEAVE_MS = 6_000;
/** How long the system may take to end a process that was killed. */
const REAP_MS = 2_000;
/** Holding the door: how long it must be quiet, and how often we look at most. */
const HOLD_MS = 3;
const HOLD_ROUNDS = 25;

/** What the stop of a whole pool works on. */
export interface StopParts {
  readonly log: Logger;
  readonly notifier: Notifier;
  readonly lifecycle: Lifecycle;
  readonly pool: WorkerPool;
  readonly server: Server;
  /** Connections accepted so far. */
  readonly accepted: () => number;
  /** Hears how many requests were in flight at the lock. */
  readonly locked: (inFlight: number) => void;
  /** Writes what the audit log still holds and closes it; false when not all of it is on disk. */
  readonly closeAudit: () => Promise<boolean>;
}

/** What a stop is to do. Durations in milliseconds. */
export interface StopPlan {
  readonly reason: string;
  readonly announcement: string;
  readonly delayMs: number;
  readonly timeoutMs: number;
  readonly failSafe: boolean;
  /** What a stop without cut requests ends with: asked at its end, for what orders it may become graver. */
  readonly exitCode: () => ExitCode;
  /** Fulfilled when the lame duck has to end at once. */
  readonly lockNow: Promise<void>;
  /** Fulfilled when what is in flight has to be cut at once. */
  readonly cutNow: Promise<void>;
}

/**
 * The whole stop of all workers, in the order in which it happens. Each worker runs the stop of its own service, told
 * by this one; what only the supervisor can do is here: the listening socket, the deadline of one that is blocked.
 */
export async function stopAll(parts: StopParts, plan: StopPlan): Promise<ShutdownReport> {
  const { lifecycle, pool, notifier, server, log } = parts;
  const orderedAt = new Date();
  const orderedMs = performance.now();
  log.info(
    { reason: plan.reason },
    `${plan.announcement} Initiating graceful shutdown${plan.failSafe ? ' (fail-safe)' : ''}...`,
  );
  const order = { reason: plan.reason, orderedAt };
  lifecycle.orderStop({
    ...order,
    lockAtMs: orderedMs + plan.delayMs,
    deadlineMs: orderedMs + plan.delayMs + plan.timeoutMs,
  });
  const workers = pool.dismissAll();
  for (const worker of workers) worker.tell({ type: 'stop', reason: plan.reason, delayMs: plan.delayMs });
  notifier.stopping();
  notifier.extend(plan.delayMs + plan.timeoutMs + LEAVE_MS);
  if (plan.delayMs > 0 && lifecycle.state === 'running') {
    log.info(`Lame duck for ${seconds(plan.delayMs)}s: health checks fail, requests are still served`);
    await within(plan.delayMs, Promise.race([plan.lockNow, plan.cutNow]));
  }

  // The lock.
  const deadlineMs = performance.now() + plan.timeoutMs;
  lifecycle.orderStop({ ...order, lockAtMs: performance.now(), deadlineMs });
  lifecycle.to('stopping');
  if (!plan.failSafe) stopAccepting(server);
  const inFlightAtLock = await countInFlight(workers);
  parts.locked(inFlightAtLock);
  log.warn(
    { in_flight: inFlightAtLock },
    `Service state: STOPPING - ${plan.failSafe ? 'Rejecting new requests (fail-safe mode). ' : ''}` +
      `${inFlightAtLock} in-flight requests remaining.`,
  );
  if (inFlightAtLock > 0) {
    log.info(
      `Waiting up to ${seconds(plan.timeoutMs)}s for ${inFlightAtLock} in-flight requests to complete...`,
    );
  }

  // The drain. Then, with nothing in flight, the last call, and everybody leaves.
  const progress = setInterval(() => void tellProgress(parts, deadlineMs), BEAT_MS);
  const cut = await drain(workers, deadlineMs, plan, log);
  clearInterval(progress);
  await lastCall(parts, workers);
  await leave(workers, Math.max(deadlineMs - performance.now(), 0) + LEAVE_MS, log);

  lifecycle.to('stopped');
  const patienceMs = cut.length > 0 ? 0 : deadlineMs - performance.now();
  const kept = await closeAudit(parts, Math.max(patienceMs, LEAVE_MS));
  const exitCode = exitCodeOf({ ordered: plan.exitCode(), kept, cut: cut.length > 0, workers });
  if (exitCode === ExitCode.Ok) log.info('Service state: STOPPED - All requests completed gracefully');
  const reports = workers.flatMap(({ report }) => (report === undefined ? [] : [report]));
  const sum = (pick: (report: ShutdownReport) => number): number =>
    reports.reduce((total, report) => total + pick(report), 0);
  return {
    unclean: false,
    pid: process.pid,
    version,
    reason: plan.reason,
    started_at: orderedAt.toISOString(),
    stopped_at: new Date().toISOString(),
    duration_seconds: Math.round(performance.now() - orderedMs) / 1000,
    in_flight_at_lock: inFlightAtLock,
    completed: sum(({ completed }) => completed),
    aborted: sum(({ aborted }) => aborted),
    cut,
    rejected: sum(({ rejected }) => rejected),
    exit_code: exitCode,
  };
}

async function countInFlight(workers: readonly WorkerHandle[]): Promise<number> {
  const counts = await Promise.all(
    workers.map(async (worker) => {
      let count: number | undefined;
      await within(
        COUNT_MS,
        worker.locked.then((inFlight) => {
          count = inFlight;
        }),
      );
      return count ?? worker.inFlightCount;
    }),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

/** Waits until nothing is in flight in any worker. One that has not cut what it had by then is blocked, and killed. */
async function drain(
  workers: readonly WorkerHandle[],
  deadlineMs: number,
  plan: StopPlan,
  log: Logger,
): Promise<readonly CutRequest[]> {
  const all = Promise.all(workers.map(({ drained }) => drained));
  // Not asked of the clock: a worker's deadline may come a moment before ours.
  let hurried = false;
  const cutNow = plan.cutNow.then(() => {
    hurried = true;
  });
  await within(deadlineMs - performance.now(), Promise.race([all, cutNow]));
  await within(CUT_GRACE_MS, all);
  const blocked = workers.filter((worker) => !worker.hasDrained);
  for (const worker of blocked) worker.kill();
  await within(REAP_MS, Promise.all(blocked.map(({ ended }) => ended)));
  const ended = workers.filter(({ hasDrained }) => hasDrained);
  const drains = await Promise.all(ended.map(({ drained }) => drained));
  const cut = drains.flatMap((drained) => drained.cut);

  const forced = blocked.length > 0 || drains.some((drained) => drained.forced);
  if (forced) {
    const count = Math.max(cut.length, blocked.length);
    log.warn(
      { in_flight: count },
      hurried
        ? `Shutdown forced: ${count} requests still in-flight`
        : `Shutdown timeout: ${count} requests still in-flight after ${seconds(plan.timeoutMs)}s`,
    );
  }
  logCut(cut, log);
  for (const { pid } of blocked)
    log.error(`Worker ${pid} did not answer: its event loop was blocked. Killed`);
  if (forced) log.error('Force shutdown: In-flight requests did not complete in time');
  return cut;
}

/** One line for each request that was cut. */
export function logCut(requests: readonly CutRequest[], log: Logger): void {
  for (const { id, method, path, age_ms } of requests) {
    log.warn(
      { request: id, method, path, age_ms },
      `Cut in-flight request: ${method} ${path} after ${seconds(age_ms)}s`,
    );
  }
}

/** As a single process does it: while the workers keep their answers back, what is queued is accepted. */
async function lastCall(
  { pool, server, accepted }: StopParts,
  workers: readonly WorkerHandle[],
): Promise<void> {
  for (const worker of workers) worker.tell({ type: 'hold' });
  for (let round = 0; server.listening && round < HOLD_ROUNDS; round += 1) {
    const before = accepted();
    await afterReading(HOLD_MS);
    if (accepted() === before) break;
  }
  stopAccepting(server);
  await afterReading(0);
  pool.dropWaiting();
  for (const worker of workers) worker.tell({ type: 'leave' });
}

async function leave(workers: readonly WorkerHandle[], ms: number, log: Logger): Promise<void> {
  const all = Promise.all(workers.map(({ ended }) => ended));
  if (await within(ms, all)) return;
  for (const worker of workers) {
    if (!worker.alive) continue;
    log.error(`Worker ${worker.pid} did not leave and is killed`);
    worker.kill();
  }
  await within(REAP_MS, all);
}

async function closeAudit({ closeAudit, log }: StopParts, ms: number): Promise<boolean> {
  let kept = false;
  const closed = closeAudit().then((whole) => {
    kept = whole;
  });
  await within(ms, closed).catch(() => false);
  if (!kept) log.error('The audit log could not be written to its end');
  return kept;
}

async function tellProgress({ pool, notifier }: StopParts, deadlineMs: number): Promise<void> {
  const { inFlight, oldest } = await pool.sum();
  const leftMs = Math.max(0, deadlineMs - performance.now());
  notifier.status(drainLine({ inFlight, oldest, state: 'stopping', left: Math.ceil(leftMs / 1000) }));
  notifier.extend(leftMs + LEAVE_MS);
}

/** The gravest of what went wrong: lost records, then what the stop was ordered for, then what was cut. */
function exitCodeOf(end: {
  ordered: ExitCode;
  kept: boolean;
  cut: boolean;
  workers: readonly WorkerHandle[];
}): ExitCode {
  // One that was killed, or has died, has not done all it had to do.
  const codes = end.workers.map(({ report }) => report?.exit_code ?? ExitCode.Forced);
  if (!end.kept || codes.includes(ExitCode.AuditLost)) return ExitCode.AuditLost;
  if (end.ordered !== ExitCode.Ok) return end.ordered;
  if (end.cut || codes.includes(ExitCode.Forced)) return ExitCode.Forced;
  return codes.includes(ExitCode.Internal) ? ExitCode.Internal : ExitCode.Ok;
}
