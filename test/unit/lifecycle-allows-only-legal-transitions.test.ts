import t from 'tap';
import { Lifecycle, type State } from '../../src/lifecycle/lifecycle.ts';

const STATES: readonly State[] = ['starting', 'running', 'stopping', 'stopped'];
const LEGAL = [
  'starting→running',
  'starting→stopping',
  'starting→stopped',
  'running→stopping',
  'stopping→stopped',
];

/** The shortest way into each state. */
const WAYS: Readonly<Record<State, readonly State[]>> = {
  starting: [],
  running: ['running'],
  stopping: ['running', 'stopping'],
  stopped: ['stopped'],
};

function lifecycleIn(state: State): Lifecycle {
  const lifecycle = new Lifecycle();
  for (const next of WAYS[state]) lifecycle.to(next);
  return lifecycle;
}

t.test('of the sixteen transitions five are legal, and the others throw and change nothing', async (t) => {
  for (const from of STATES) {
    for (const next of STATES) {
      const lifecycle = lifecycleIn(from);
      const since = lifecycle.since;
      const name = `${from}→${next}`;
      if (LEGAL.includes(name)) {
        lifecycle.to(next);
        t.equal(lifecycle.state, next, name);
        t.not(lifecycle.since, since);
      } else {
        t.throws(() => lifecycle.to(next), { message: `lifecycle: no way from ${from} to ${next}` }, name);
        t.equal(lifecycle.state, from);
        t.equal(lifecycle.since, since);
      }
    }
  }
});

t.test('stopping is aborted in the turn in which the state becomes stopping, and finds it so', async (t) => {
  const lifecycle = lifecycleIn('running');
  let seen: State | undefined;
  lifecycle.stopping.addEventListener('abort', () => {
    seen = lifecycle.state;
  });
  t.notOk(lifecycle.stopping.aborted);
  lifecycle.to('stopping');
  t.equal(seen, 'stopping');
  t.match(lifecycle.stopping.reason, { message: 'the service is stopping' });
});

t.test('a start that fails aborts nothing', async (t) => {
  t.notOk(lifecycleIn('stopped').stopping.aborted);
});

t.test('it is ready while running, until a stop is ordered', async (t) => {
  t.strictSame(
    STATES.map((state) => lifecycleIn(state).ready),
    [false, true, false, false],
  );
  const lifecycle = lifecycleIn('running');
  lifecycle.orderStop({ reason: 'SIGTERM', orderedAt: new Date(), lockAtMs: 100, deadlineMs: 200 });
  t.notOk(lifecycle.ready);
  t.equal(lifecycle.state, 'running');
});

t.test('the first order counts, unless a later one locks earlier', async (t) => {
  const lifecycle = new Lifecycle();
  t.equal(lifecycle.order, undefined);
  const first = { reason: 'SIGTERM', orderedAt: new Date(), lockAtMs: 100, deadlineMs: 200 };
  lifecycle.orderStop(first);
  lifecycle.orderStop({ reason: 'SIGINT', orderedAt: new Date(), lockAtMs: 100, deadlineMs: 150 });
  t.equal(lifecycle.order, first);
  const earlier = { reason: 'emergency', orderedAt: new Date(), lockAtMs: 50, deadlineMs: 150 };
  lifecycle.orderStop(earlier);
  t.equal(lifecycle.order, earlier);
});

t.test('a thousand listeners of one stop are no leak', async (t) => {
  const { stopping } = new Lifecycle();
  const warned: Error[] = [];
  const onWarning = (warning: Error): void => void warned.push(warning);
  process.on('warning', onWarning);
  for (let index = 0; index < 1000; index += 1) stopping.addEventListener('abort', () => undefined);
  // Warnings are emitted in the next tick.
  await new Promise((resolve) => setImmediate(resolve));
  process.off('warning', onWarning);
  t.strictSame(warned, []);
});
