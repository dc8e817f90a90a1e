import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { pino } from 'pino';
import t from 'tap';
import type { Backend, Cut } from '../../src/control/backend.ts';
import { type StopParts, type StopPlan, stop } from '../../src/control/stop.ts';
import { ExitCode } from '../../src/exit-code.ts';
import type { ShutdownReport } from '../../src/lifecycle/last-shutdown.ts';
import { Lifecycle } from '../../src/lifecycle/lifecycle.ts';
import { deferred } from '../../src/platform/deferred.ts';
import { Connections } from '../../src/server/connections.ts';
import { Gate } from '../../src/server/gate.ts';
import { InFlight, type Leave } from '../../src/server/in-flight.ts';
import { RequestAudit } from '../../src/server/request-audit.ts';

/** What a stop may take beyond its delay and its deadline: the quiet tail, and the turns of the loop. */
const TAIL_MS = 500;

interface Timer {
  atMs: number;
  readonly everyMs: number | undefined;
  readonly run: () => void;
}

/** A clock that stands still until it is told to go on. Timers and `performance.now` of this process are its own meanwhile. */
class Clock {
  nowMs = 1_000;
  readonly #timers = new Set<Timer>();
  readonly #real = {
    ...{ setTimeout: globalThis.setTimeout, clearTimeout: globalThis.clearTimeout },
    ...{ setInterval: globalThis.setInterval, clearInterval: globalThis.clearInterval },
  };

  begin(): void {
    const add =
      (repeats: boolean) =>
      (run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) => {
        const delayMs = Math.max(1, ms);
        const timer = {
          atMs: this.nowMs + delayMs,
          everyMs: repeats ? delayMs : undefined,
          run: () => run(...args),
        };
        this.#timers.add(timer);
        return Object.assign(timer, { unref: () => timer });
      };
    const remove = (timer: Timer): void => void this.#timers.delete(timer);
    Object.assign(globalThis, { setTimeout: add(false), setInterval: add(true) });
    Object.assign(globalThis, { clearTimeout: remove, clearInterval: remove });
    Object.defineProperty(performance, 'now', { configurable: true, value: () => this.nowMs });
  }

  end(): void {
    Object.assign(globalThis, this.#real);
    Reflect.deleteProperty(performance, 'now');
  }

  /** Goes on by so much, from timer to timer, and lets happen what follows from each. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    for (;;) {
      await settle();
      const [next] = [...this.#timers].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs);
      if (next === undefined) break;
      this.nowMs = Math.max(this.nowMs, next.atMs);
      if (next.everyMs === undefined) this.#timers.delete(next);
      else next.atMs += next.everyMs;
      next.run();
    }
    this.nowMs = untilMs;
    await settle();
  }
}

/** What was promised is kept, and the loop has turned. */
async function settle(): Promise<void> {
  for (let round = 0; round < 4; round += 1) await turn();
}

const event = fc.oneof(
  fc.constant('come' as const),
  fc.constant('leave' as const),
  fc.constantFrom('lock now' as const, 'cut now' as const),
  fc.integer({ min: 1, max: 4_000 }),
);
const plan = fc.record({
  before: fc.integer({ min: 0, max: 4 }),
  delayMs: fc.constantFrom(0, 0, 2_000),
  timeoutMs: fc.integer({ min: 0, max: 6_000 }),
  events: fc.array(event, { maxLength: 16 }),
});

t.test(
  'in any order of requests, orders and time: locked at once, gone in time, and the code is true',
  async (t) => {
    await fc.assert(fc.asyncProperty(plan, playPlan), { numRuns: 300 });
    t.pass('300 stops');
  },
);

async function playPlan({ before, delayMs, timeoutMs, events }: Plan): Promise<void> {
  const clock = new Clock();
  clock.begin();
  try {
    const hurry = { lockNow: deferred<void>(), cutNow: deferred<void>() };
    const scene = sceneOf({
      ...{ delayMs, timeoutMs, lockNow: hurry.lockNow.promise, cutNow: hurry.cutNow.promise },
      drainAcceptQueue: () =>
        check(inFlight.count === 0 || scene.forced(), 'nobody leaves before the last one'),
    });
    const { lifecycle, gate, inFlight } = scene;
    const held: Leave[] = [];
    const come = (): void => {
      const admitted = gate.admit();
      check(admitted === (lifecycle.state === 'running'), 'the gate is as the state says');
      if (admitted) held.push(() => inFlight.leave());
    };
    for (let count = 0; count < before; count += 1) come();

    const orderedMs = clock.nowMs;
    let lockDueMs = orderedMs + delayMs;
    let wasCut = false;
    let result: ShutdownReport | undefined;
    let endedMs = 0;
    void stop(scene.parts, scene.plan).then((end) => {
      result = end;
      endedMs = clock.nowMs;
    });
    if (delayMs === 0) check(lifecycle.state === 'stopping', 'locked in the same turn');

    let most = inFlight.count;
    for (const what of events) {
      if (what === 'come') come();
      else if (what === 'leave') held.shift()?.();
      else if (what === 'lock now' || what === 'cut now') {
        if (what === 'lock now') hurry.lockNow.resolve();
        else {
          hurry.cutNow.resolve();
          wasCut = true;
        }
        lockDueMs = Math.min(lockDueMs, clock.nowMs);
        await settle();
      } else await clock.advance(what);
      check(lifecycle.state !== 'running' || clock.nowMs <= lockDueMs, 'locked when it was due');
      if (lifecycle.state !== 'running') check(inFlight.count <= most, 'once stopping, it can only fall');
      most = inFlight.count;
    }
    const latestMs = lockDueMs + timeoutMs + TAIL_MS;
    await clock.advance(Math.max(0, latestMs - clock.nowMs) + 1);
    check(result !== undefined && endedMs <= latestMs, 'gone in time');
    check(lifecycle.state === 'stopped', 'stopped');
    const forced = scene.forced();
    check(result?.in_flight_at_lock === scene.atLock(), 'what was in flight at the lock');
    check(result?.exit_code === (forced ? ExitCode.Forced : ExitCode.Ok), 'the exit code');
    if (forced && !wasCut) check(endedMs >= lockDueMs + timeoutMs, 'nothing is forced before the deadline');
    if (held.length > 0) check(forced === true, 'only a deadline leaves somebody behind');
  } finally {
    clock.end();
  }
}

interface Scene {
  readonly delayMs: number;
  readonly timeoutMs: number;
  readonly lockNow?: Promise<void>;
  readonly cutNow?: Promise<void>;
  readonly drainAcceptQueue?: () => void;
  readonly closeAudit?: () => Promise<boolean>;
}

/** A backend that is nothing but a gate and a counter, and all else that a stop works on. */
function sceneOf(scene: Scene) {
  const never = new Promise<void>(() => undefined);
  const [lifecycle, log] = [new Lifecycle(), pino({ level: 'silent' })];
  const inFlight = new InFlight();
  let forced = false;
  let atLock = 0;
  lifecycle.to('running');
  const gate = new Gate(
    { lifecycle, inFlight, connections: new Connections(), log, requestAudit: new RequestAudit() },
    { enableFailSafe: true, maxInFlight: 0, maxPipelined: 64, retryAfter: 5 },
  );
  const backend: Backend = {
    ...{ where: 'nowhere', ready: true, responsive: true, generation: 1 },
    ...{ start: never, open: never, reload: never, status: never, kill: never },
    ...{ reopen: () => undefined, stopOrdered: () => undefined, lose: () => [] },
    lock: async () => ({ count: inFlight.count, oldest: [], holds: [] }),
    drained: () => inFlight.drained(),
    cut: async (): Promise<Cut> => {
      forced ||= inFlight.count > 0;
      return { requests: [], holds: [], unnamed: inFlight.count };
    },
    drainAcceptQueue: async () => {
      scene.drainAcceptQueue?.();
      return inFlight.count;
    },
    close: async () => ({ completed: 0, aborted: 0, closed: 0, refused: 0, cut: [], exitCode: ExitCode.Ok }),
  } as unknown as Backend;
  const parts: StopParts = {
    ...{ lifecycle, backend, log, cut: [] },
    locked: (count) => {
      atLock = count;
    },
    closeAudit: scene.closeAudit ?? (async () => true),
  };
  const plan: StopPlan = {
    ...{ reason: 'test', announcement: 'Test.', failSafe: true, exitCode: () => ExitCode.Ok },
    ...{ delayMs: scene.delayMs, timeoutMs: scene.timeoutMs },
    ...{ lockNow: scene.lockNow ?? never, cutNow: scene.cutNow ?? never },
  };
  return { lifecycle, gate, inFlight, parts, plan, forced: () => forced, atLock: () => atLock };
}

interface Plan {
  readonly before: number;
  readonly delayMs: number;
  readonly timeoutMs: number;
  readonly events: readonly ('come' | 'leave' | 'lock now' | 'cut now' | number)[];
}

/** @throws Error, from which fast-check finds the shortest order that breaks it */
function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`does not hold: ${what}`);
}

t.test('a slow disk has the rest of the deadline, but keeps nobody who had to be forced', async (t) => {
  const closeMs = 7_000;
  t.equal(await exitCodeWith({ closeMs, timeoutMs: 10_000, held: 0 }), ExitCode.Ok);
  t.equal(
    await exitCodeWith({ closeMs, timeoutMs: 100, held: 0 }),
    ExitCode.AuditLost,
    'nothing is left of it',
  );
  t.equal(
    await exitCodeWith({ closeMs: 3_000, timeoutMs: 100, held: 1 }),
    ExitCode.Forced,
    'the least it gets',
  );
});

/** A stop whose audit log takes so long to be closed. */
async function exitCodeWith(given: {
  closeMs: number;
  timeoutMs: number;
  held: number;
}): Promise<ExitCode | undefined> {
  const clock = new Clock();
  clock.begin();
  try {
    const scene = sceneOf({
      delayMs: 0,
      timeoutMs: given.timeoutMs,
      closeAudit: () => new Promise((resolve) => setTimeout(resolve, given.closeMs, true)),
    });
    for (let count = 0; count < given.held; count += 1) scene.gate.admit();
    let exitCode: ExitCode | undefined;
    void stop(scene.parts, scene.plan).then((end) => {
      exitCode = end.exit_code;
    });
    await clock.advance(20_000);
    return exitCode;
  } finally {
    clock.end();
  }
}
