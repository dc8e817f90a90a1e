import t from 'tap';
import { afterReading, seconds, within } from '../../src/platform/deadline.ts';

const never = new Promise<void>(() => undefined);

/** Timers of this process that are under way. */
function timers(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
}

t.test('what settles in time is true, and its timer is cancelled', async (t) => {
  const before = timers();
  t.equal(await within(3_600_000, Promise.resolve('value')), true);
  t.equal(timers(), before);
});

t.test('what does not settle in time is false', async (t) => {
  t.equal(await within(5, never), false);
  t.equal(await within(0, never), false);
  t.equal(await within(-1, never), false);
  t.equal(await within(Number.NEGATIVE_INFINITY, never), false);
});

t.test('a wait is never shorter than asked for, not by a part of a millisecond', async (t) => {
  for (let times = 0; times < 50; times += 1) {
    const beganMs = performance.now();
    await within(2.9, never);
    const tookMs = performance.now() - beganMs;
    if (tookMs < 2.9) t.fail(`it took ${tookMs} ms`);
  }
});

t.test('a rejection goes through, and cancels the timer too', async (t) => {
  const before = timers();
  await t.rejects(within(3_600_000, Promise.reject(new Error('broken'))), { message: 'broken' });
  t.equal(timers(), before);
});

t.test('a rejection after the deadline is nobody’s, and harms nobody', async (t) => {
  let fail: (error: Error) => void = () => undefined;
  const late = new Promise<void>((_, reject) => {
    fail = reject;
  });
  t.equal(await within(1, late), false);
  fail(new Error('too late'));
  // An unhandled rejection would fail this test's process.
  await new Promise((resolve) => setImmediate(resolve));
});

t.test('a wait longer than a timer can take does not end at once', async (t) => {
  const settled = afterReading(5);
  t.equal(await within(2 ** 40, settled), true);
  t.equal(await within(Number.POSITIVE_INFINITY, afterReading(5)), true);
});

t.test('afterReading lets the loop read its sockets once more after the timer', async (t) => {
  const order: string[] = [];
  setTimeout(() => {
    order.push('timer');
    setImmediate(() => order.push('immediate'));
  }, 0);
  await afterReading(0);
  t.strictSame(order, ['timer', 'immediate']);
});

t.test('seconds are written as people write them', async (t) => {
  t.strictSame([0, 30_000, 500, 1_249, 1_250, 86_400_000].map(seconds), [
    '0',
    '30',
    '0.5',
    '1.2',
    '1.3',
    '86400',
  ]);
});
