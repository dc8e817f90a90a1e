import t from 'tap';
import { type Deferred, deferred } from '../../src/platform/deferred.ts';
import { oneAtATime } from '../../src/platform/one-at-a-time.ts';

t.test('however many calls come during a run, one more run follows, and never two at once', async (t) => {
  const runs: Deferred<void>[] = [];
  const run = oneAtATime(() => {
    const ended = deferred<void>();
    runs.push(ended);
    return ended.promise;
  });
  const done = run();
  t.equal(runs.length, 1, 'the first begins in the same turn');
  for (let call = 0; call < 3; call += 1) void run();
  t.equal(runs.length, 1);
  runs[0]?.resolve();
  await new Promise(setImmediate);
  t.equal(runs.length, 2, 'one run for three calls');
  runs[1]?.resolve();
  await done;
  t.equal(runs.length, 2);
  void run();
  t.equal(runs.length, 3, 'and it can be called again');
  runs[2]?.resolve();
});
