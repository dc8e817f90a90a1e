import { type Case, makeCase } from './cases.ts';
import { judge, play } from './play.ts';
import { Random } from './random.ts';
import { openTarget, STATES, type StateName, type Target } from './states.ts';

/** A case that has broken a promise, small enough to be read. */
export interface Failure {
  readonly state: StateName;
  /** Undefined when no single case is to blame: the service itself was found broken after a batch. */
  readonly case: Case | undefined;
  readonly wrong: readonly string[];
}

export interface Findings {
  readonly cases: number;
  readonly dispatches: number;
  readonly failures: readonly Failure[];
}

export interface FuzzOptions {
  readonly seed: number;
  readonly states?: readonly StateName[];
  /** The services guard a program instead of serving an application. */
  readonly guards?: boolean;
  /** No round is begun after so long; each state gets at least one. */
  readonly forMs: number;
  /** Cases in a round: a round is one service in one state, from its start to its end. */
  readonly round: number;
  readonly told?: (line: string) => void;
}

/** Connections at a time. */
const AT_ONCE = 24;
const MOST_FAILURES = 10;
/** Tries to make a failing case smaller. */
const MOST_TRIES = 150;
const MOST_SHRINKING_MS = 20_000;

/** Plays cases that the seed decides, state after state, until the time is over. */
export async function fuzz({
  seed,
  guards = false,
  states = guards ? STATES.filter((state) => state !== 'starting') : STATES,
  forMs,
  round,
  told = () => undefined,
}: FuzzOptions): Promise<Findings> {
  const random = new Random(seed);
  const endMs = performance.now() + forMs;
  const failures: Failure[] = [];
  let cases = 0;
  let dispatches = 0;
  for (let turn = 0; turn < states.length || performance.now() < endMs; turn += 1) {
    const state = states[turn % states.length] as StateName;
    const found = await playRound(
      state,
      Array.from({ length: round }, () => makeCase(random)),
      guards,
    );
    cases += round;
    dispatches += found.dispatches;
    failures.push(...found.failures);
    told(`${state}: ${round} cases, ${found.dispatches} dispatched, ${found.failures.length} failures`);
    if (failures.length >= MOST_FAILURES) break;
  }
  return { cases, dispatches, failures };
}

/** Plays one case by itself. @returns what was wrong */
export async function replay(state: StateName, one: Case): Promise<string[]> {
  const target = await openTarget(state);
  try {
    const wrong = await playOne(target, one);
    return [...wrong, ...(await target.health()), ...(await target.close())];
  } finally {
    await target.kill();
  }
}

/** Makes a failing case smaller as long as it still fails. */
export async function minimize({ state, case: first, wrong }: Failure): Promise<Failure> {
  if (first === undefined) return { state, case: first, wrong };
  let target = await openTarget(state);
  let smallest = { one: first, wrong };
  try {
    const fails = async (one: Case): Promise<boolean> => {
      const wrong = [...(await playOne(target, one)), ...(await target.health())];
      if (wrong.length === 0) return false;
      smallest = { one, wrong };
      await target.kill();
      target = await openTarget(state);
      return true;
    };
    if (state === 'signalled' || !(await fails(first))) return { state, case: first, wrong };
    let tries = 0;
    const endMs = performance.now() + MOST_SHRINKING_MS;
    const enough = (): boolean => tries >= MOST_TRIES || performance.now() > endMs;
    const text = (): string => smallest.one.pieces.join('');
    await fails({ ...smallest.one, pieces: [text()] });
    for (let size = text().length >> 1; size >= 1 && !enough(); size >>= 1) {
      for (let at = 0; at < text().length && !enough(); tries += 1) {
        const { pieces } = smallest.one;
        const shorter = without(pieces, at, size);
        // What is cut out of a well-formed case is no longer one, so it is not held to answering each.
        if (!(await fails({ ...smallest.one, pieces: shorter, plain: false }))) at += size;
      }
    }
    return { state, case: smallest.one, wrong: smallest.wrong };
  } finally {
    await target.kill();
  }
}

function without(pieces: readonly string[], at: number, size: number): string[] {
  let skip = at;
  let left = size;
  return pieces
    .map((piece) => {
      const from = Math.min(skip, piece.length);
      const to = Math.min(from + left, piece.length);
      skip -= from;
      if (skip === 0) left -= to - from;
      return piece.slice(0, from) + piece.slice(to);
    })
    .filter((piece) => piece !== '');
}

async function playOne(target: Target, one: Case): Promise<string[]> {
  target.dispatches();
  const played = await play(one, target.port);
  await settled(target);
  return judge(one, played, target.dispatches(), target.admission);
}

async function playRound(
  state: StateName,
  cases: readonly Case[],
  guards: boolean,
): Promise<{ dispatches: number; failures: Failure[] }> {
  const target = await openTarget(state, guards);
  const failures: Failure[] = [];
  let dispatches = 0;
  try {
    const interruptAt = state === 'signalled' ? cases.length >> 1 : -1;
    let next = 0;
    const outcomes = new Map<number, { one: Case; played: Awaited<ReturnType<typeof play>> }>();
    const workers = Array.from({ length: AT_ONCE }, async () => {
      while (next < cases.length) {
        const index = next;
        next += 1;
        if (index === interruptAt) target.interrupt();
        const one = cases[index] as Case;
        const played = await play(one, target.port, guards ? index + 1 : undefined);
        // The kernel gives a port again only long after: one port is one case.
        if (played.localPort > 0) outcomes.set(played.localPort, { one, played });
      }
    });
    await Promise.all(workers);
    await settled(target);
    const all = target.dispatches();
    for (const [port, { one, played }] of outcomes) {
      const own = all.filter((dispatch) => dispatch.port === port);
      dispatches += own.length;
      const wrong = judge(one, played, own, target.admission);
      if (wrong.length > 0) failures.push({ state, case: one, wrong });
    }
    const wrong = [...(await target.health()), ...(await target.close())];
    if (wrong.length > 0) failures.push({ state, case: undefined, wrong });
  } finally {
    await target.kill();
  }
  return { dispatches, failures };
}

/** Comes back when nothing that was sent is still on its way to the application. */
async function settled(target: Target): Promise<void> {
  await target.health();
}
