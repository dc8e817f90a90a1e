import { closeSync } from 'node:fs';
import t, { type Test } from 'tap';
import { openSharesFile, Shares } from '../../src/backends/workers/shares.ts';
import { tempDir } from '../support/service-process.ts';

function workers(t: Test, count: number): Shares[] {
  const fd = openSharesFile(count, tempDir(t));
  t.teardown(() => closeSync(fd));
  return Array.from({ length: count }, (_, slot) => new Shares(fd, slot, count));
}

/** Opens so many connections on a worker. */
function open(worker: Shares | undefined, count: number): void {
  for (let n = 0; n < count; n += 1) worker?.count(1);
}

t.test('one more than a quarter above the mean is passed on', async (t) => {
  const [a, b] = workers(t, 2);
  open(a, 2);
  open(b, 1);
  t.equal(a?.mustPassOn(100), false, '3 and 1');
  a?.count(1);
  t.equal(a?.mustPassOn(100), true, '4 and 1');
  t.equal(b?.mustPassOn(100), false);
});

t.test('no more than a worker may have, however few the others have', async (t) => {
  const [a, b] = workers(t, 2);
  open(a, 2);
  open(b, 1);
  t.equal(a?.mustPassOn(2), true);
});

t.test('what is on its way to another counts until that has it', async (t) => {
  const [a, b] = workers(t, 2);
  const taken: boolean[] = [];
  for (let n = 0; n < 10; n += 1) {
    const passed = a?.mustPassOn(100) === true;
    taken.push(!passed);
    if (!passed) a?.count(1);
  }
  const own = taken.filter(Boolean).length;
  t.ok(own >= 5 && own <= 7, `${own} of 10 are kept`);
  for (let n = own; n < 10; n += 1) {
    b?.handed();
    b?.count(1);
  }
  t.equal(b?.mustPassOn(100), false, 'the other one still has fewer');
});

t.test('a connection that is closed makes room', async (t) => {
  const [a] = workers(t, 2);
  t.equal(a?.mustPassOn(100), false);
  a?.count(1);
  t.equal(a?.mustPassOn(100), true);
  a?.handed();
  a?.count(-1);
  t.equal(a?.mustPassOn(100), false);
});
