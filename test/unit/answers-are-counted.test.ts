import t from 'tap';
import { BUCKETS, Tally } from '../../src/server/tally.ts';

t.test('answers are counted by the first digit of their status, and what had none under 0', async (t) => {
  const tally = new Tally();
  for (const status of [200, 204, 299, 301, 404, 503, 0]) tally.count(status, 1);
  t.strictSame(tally.snapshot('GET', '/x').classes, [1, 0, 3, 1, 1, 1]);
});

t.test('a duration falls into the first bucket that is not below it', async (t) => {
  for (const [index, bound] of BUCKETS.entries()) {
    const tally = new Tally();
    tally.count(200, bound * 1000);
    tally.count(200, bound * 1000 + 0.01);
    const { buckets } = tally.snapshot('GET', '/x');
    t.equal(buckets[index], 1, `at ${bound} s`);
    t.equal(buckets[index + 1], 1, `just above ${bound} s`);
    t.equal(
      buckets.reduce((sum, count) => sum + count, 0),
      2,
    );
  }
});

t.test('a snapshot is a copy with its route, and the sum is in seconds', async (t) => {
  const tally = new Tally();
  tally.count(200, 250);
  tally.count(200, 20_000);
  const before = tally.snapshot('POST', '/orders/:id');
  tally.count(500, 1);
  t.match(before, { method: 'POST', route: '/orders/:id', sumSeconds: 20.25 });
  t.equal(before.classes[5], 0);
  t.equal(before.buckets.at(-1), 1, 'what takes longer than the last bound is counted as well');
  t.equal(before.buckets.length, BUCKETS.length + 1);
});
