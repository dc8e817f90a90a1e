import type { Logger } from 'pino';
import { ExitCode } from '../../exit-code.ts';
import type { CutRequest } from '../../lifecycle/last-shutdown.ts';
import type { Lifecycle } from '../../lifecycle/lifecycle.ts';
import { afterReading, seconds, within } from '../../platform/deadline.ts';
import type { Connections } from '../../server/connections.ts';
import type { Exchange, Outcome } from '../../server/exchange.ts';
import type { Gate } from '../../server/gate.ts';
import type { InFlight } from '../../server/in-flight.ts';
import type { Listener } from './listener.ts';

/** A request whose body stops coming for so long is cut while the service stops, so that it does not cost the grace. */
const STALL_MS = 5_000;
/** How often stalled bodies are looked for. */
const STALL_CHECK_MS = 500;
/** The quiet tail: gone when so long nothing came, and in any case after the bound. */
const QUIET_MS = 10;
const TAIL_MS = 250;
/** So many connections are ended before the others are looked at again. */
const HUNG_UP_AT_ONCE = 1_000;
/** What the application's stop() gets, however little of the deadline is left. */
const LEAST_STOP_MS = 1_000;
/** What the audit log gets to write its end, however little is left: a disk that does not answer must not hold the process. */
const LEAST_CLOSE_MS = 4_000;

/** What a stop works on. */
export interface ShutdownParts {
  readonly lifecycle: Lifecycle;
  readonly listener: Listener;
  readonly gate: Gate;
  readonly connections: Connections;
  readonly inFlight: InFlight;
  readonly log: Logger;
  /** Takes the lines that tell people how the stop goes; a supervisor tells them itself, for all its workers. */
  readonly lifecycleLog: Logger;
  /** Requests that have ended so far, by outcome. */
  readonly outcomes: Readonly<Record<Outcome, number>>;
  /** Hears how many requests were in flight when the gate was locked. */
  readonly locked: (inFlight: number) => void;
  /** Hears that nothing is in flight any more, what had to be cut for that, and whether the drain was forced to its end. */
  readonly drained: (cut: readonly CutRequest[], forced: boolean) => void;
  /** Ends what the application has opened. */
  readonly stopApp: () => Promise<void>;
  /** Writes what the audit log still holds and closes it; false when not all of it is on disk. */
  readonly closeAudit: () => Promise<boolean>;
}

/** What a stop is to do. Durations in milliseconds. */
export interface ShutdownPlan {
  readonly reason: string;
  /** The first line of the log: what was received, from whom. */
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

/** What a stop has come to. */
export interface ShutdownResult {
  readonly reason: string;
  readonly durationMs: number;
  readonly inFlightAtLock: number;
  readonly completed: number;
  readonly aborted: number;
  readonly cut: readonly CutRequest[];
  readonly rejected: number;
  readonly exitCode: ExitCode;
}

/**
 * The whole stop, from the signal to the end, in the order in which it happens. It never calls
 * `http.Server.close()`: that closes idle connections at once (since Node 19), also one whose next request is on its
 * way, and it ends the timer behind the time limits for half-sent requests.
 */
export async function shutdown(parts: ShutdownParts, plan: ShutdownPlan): Promise<ShutdownResult> {
  const { lifecycle, listener, gate, connections, inFlight, lifecycleLog: log } = parts;
  const orderedMs = performance.now();
  log.info({ reason: plan.reason }, plan.announcement);
  const orderedAt = new Date();
  lifecycle.orderStop({
    reason: plan.reason,
    orderedAt,
    lockAtMs: orderedMs + plan.delayMs,
    deadlineMs: orderedMs + plan.delayMs + plan.timeoutMs,
  });
  if (plan.delayMs > 0 && lifecycle.state === 'running') {
    log.info(`Lame duck for ${seconds(plan.delayMs)}s: health checks fail, requests are still served`);
    await within(plan.delayMs, Promise.race([plan.lockNow, plan.cutNow]));
  }

  // The lock. Without a lame duck we are still in the turn of the loop in which the signal came.
  const lockedMs = performance.now();
  const deadlineMs = lockedMs + plan.timeoutMs;
  lifecycle.orderStop({ reason: plan.reason, orderedAt, lockAtMs: lockedMs, deadlineMs });
  lifecycle.to('stopping');
  for (const connection of connections) connection.announceClose();
  if (!plan.failSafe) listener.close();
  const inFlightAtLock = inFlight.count;
  const before = { ...parts.outcomes, rejected: gate.refused.stopping };
  parts.locked(inFlightAtLock);
  log.warn(
    { in_flight: inFlightAtLock },
    `Service state: STOPPING - ${plan.failSafe ? 'Rejecting new requests (fail-safe mode). ' : ''}` +
      `${inFlightAtLock} in-flight requests remaining.`,
  );

  // The drain, and the quiet tail: refuse what was on its way, then leave.
  const cut: CutRequest[] = [];
  let forced = false;
  if (inFlightAtLock > 0) {
    log.info(
      `Waiting up to ${seconds(plan.timeoutMs)}s for ${inFlightAtLock} in-flight requests to complete...`,
    );
  }
  const stallWatch = cutStalledBodies(connections, (exchange) =>
    cutExchange(exchange, 'its body has stalled'),
  );
  do {
    await within(deadlineMs - performance.now(), Promise.race([inFlight.drained(), plan.cutNow]));
    if (inFlight.count > 0) {
      forced = true;
      force();
    }
    parts.drained(cut, forced);
    await listener.lastCall(gate, connections);
    await quietTail(connections, lockedMs);
    // Without fail-safe the tail lets in what it finds, and that is waited for as everything else is.
  } while (inFlight.count > 0 && !forced);
  clearInterval(stallWatch);
  const hangUpAll = (): Promise<void> =>
    hangUp(gate, connections, (exchange) => cutExchange(exchange, 'the time is over'));
  // Behind the gate of the fail-safe stop connections may stay while the application stops: what comes is refused.
  if (!plan.failSafe) await hangUpAll();
  const left = await stopApp(parts, Math.max(deadlineMs - performance.now(), LEAST_STOP_MS));
  await hangUpAll();
  gate.flushSummary();
  lifecycle.to('stopped');
  // A disk that is slow is not lost while there is time; but who was in a hurry is not kept for it.
  const patienceMs = forced ? 0 : deadlineMs - performance.now();
  const kept = await closeAudit(parts, Math.max(patienceMs, LEAST_CLOSE_MS));
  const exitCode = exitCodeOf({ kept, ordered: plan.exitCode(), cut: forced || cut.length > 0, left });
  if (exitCode === ExitCode.Ok) log.info('Service state: STOPPED - All requests completed gracefully');
  return {
    reason: plan.reason,
    durationMs: performance.now() - orderedMs,
    inFlightAtLock,
    completed: parts.outcomes.completed - before.completed,
    aborted: parts.outcomes.aborted - before.aborted,
    cut,
    rejected: gate.refused.stopping - before.rejected,
    exitCode,
  };

  function force(): void {
    const count = inFlight.count;
    const early = deadlineMs - performance.now() > 1;
    log.warn(
      { in_flight: count },
      early
        ? `Shutdown forced: ${count} requests still in-flight after ${seconds(performance.now() - lockedMs)}s`
        : `Shutdown timeout: ${count} requests still in-flight after ${seconds(plan.timeoutMs)}s`,
    );
    const exchanges = [...connections.exchanges()];
    for (const exchange of exchanges) cutExchange(exchange, 'the time is over');
    const held = count - exchanges.length;
    if (held > 0) log.warn(`Cut ${held} pieces of work that the application still held in flight`);
    log.error('Force shutdown: In-flight requests did not complete in time');
  }

  function cutExchange(exchange: Exchange, why: string): void {
    cut.push(logCut(log, exchange, why));
    exchange.cut();
  }
}

/** The line that names a request whose answer is not waited for any more, and what reports say of it. */
export function logCut(log: Logger, { id, method, path, ageMs, phase }: Exchange, why: string): CutRequest {
  const request = { method, path, age_ms: Math.round(ageMs) };
  log.warn(
    { request: id, ...request, phase },
    `Cut in-flight request: ${method} ${path} after ${seconds(ageMs)}s (${phase}), because ${why}`,
  );
  return { id, ...request };
}

/** The gravest of what went wrong: lost records, then what the stop was ordered for, then what it has cut. */
function exitCodeOf(end: { kept: boolean; ordered: ExitCode; cut: boolean; left: ExitCode }): ExitCode {
  if (!end.kept) return ExitCode.AuditLost;
  if (end.ordered !== ExitCode.Ok) return end.ordered;
  return end.cut ? ExitCode.Forced : end.left;
}

/**
 * Answers on until nothing has come for a while: no connection, no request, no byte of a body that is dropped. Who has
 * connected since the lock is about to ask, however slow it is: that is waited for as long as the tail may be.
 */
async function quietTail(connections: Connections, lockedMs: number): Promise<void> {
  const endMs = performance.now() + TAIL_MS;
  let before = '';
  let now = signs(connections);
  while ((now !== before || isAnyoneAboutToAsk(connections, lockedMs)) && performance.now() < endMs) {
    before = now;
    await afterReading(QUIET_MS);
    now = signs(connections);
  }
}

function isAnyoneAboutToAsk(connections: Connections, lockedMs: number): boolean {
  for (const connection of connections) if (connection.openedMs >= lockedMs && connection.silent) return true;
  return false;
}

function signs(connections: Connections): string {
  let dropped = 0;
  for (const connection of connections) if (connection.sending) dropped += connection.socket.bytesRead;
  return `${connections.arrivals} ${dropped}`;
}

/**
 * Ends what is left: half-closes it, lets the loop read once more, then destroys it. What comes on a connection between
 * the last look at it and its end is lost, so an idle one is destroyed at once, and after every few of them the loop
 * turns: what has come on the others meanwhile is refused. Without fail-safe it is let in even now, and `cut`.
 */
async function hangUp(
  gate: Gate,
  connections: Connections,
  cut: (exchange: Exchange) => void,
): Promise<void> {
  let ended = 0;
  for (const connection of connections) {
    if (connection.halfSent) gate.refuseRaw(connection);
    if (connection.isAtRest) connection.socket.destroy();
    else if (connection.current === undefined) connection.socket.end();
    ended += 1;
    if (ended % HUNG_UP_AT_ONCE === 0) await afterReading(0);
  }
  if (connections.size > 0) await afterReading(0);
  for (const exchange of [...connections.exchanges()]) cut(exchange);
  for (const { socket } of connections) socket.destroy();
}

/** Calls `cut` for each request whose handler waits for a body that has not moved for a while. */
function cutStalledBodies(connections: Connections, cut: (exchange: Exchange) => void): NodeJS.Timeout {
  const seen = new Map<Exchange, { bytes: number; sinceMs: number }>();
  return setInterval(() => {
    const now = performance.now();
    for (const exchange of connections.exchanges()) {
      const bytes = exchange.request.socket.bytesRead;
      const last = seen.get(exchange);
      if (exchange.phase !== 'receiving') seen.delete(exchange);
      else if (last === undefined || last.bytes !== bytes) seen.set(exchange, { bytes, sinceMs: now });
      else if (now - last.sinceMs >= STALL_MS) cut(exchange);
    }
  }, STALL_CHECK_MS);
}

async function closeAudit({ closeAudit, log }: ShutdownParts, ms: number): Promise<boolean> {
  let kept = false;
  const inTime = await within(
    ms,
    closeAudit().then((whole) => {
      kept = whole;
    }),
  ).catch(() => false);
  if (!inTime || !kept) log.error('The audit log could not be written to its end');
  return kept;
}

async function stopApp({ stopApp, log }: ShutdownParts, ms: number): Promise<ExitCode> {
  try {
    if (await within(ms, stopApp())) return ExitCode.Ok;
    log.error(`The application's stop() was not done after ${seconds(ms)}s`);
    return ExitCode.Forced;
  } catch (error) {
    log.error({ err: error }, "The application's stop() failed");
    return ExitCode.Internal;
  }
}
