import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import ts from 'typescript';
import { within } from '../../src/platform/deadline.ts';
import { InFlight } from '../../src/server/in-flight.ts';
import { ROOT } from '../support/root.ts';

t.test('whoever enters gets a leave that works once', async (t) => {
  const inFlight = new InFlight();
  const first = inFlight.enter();
  const second = inFlight.enter();
  t.equal(inFlight.count, 2);
  first();
  first();
  t.equal(inFlight.count, 1);
  second();
  second();
  t.equal(inFlight.count, 0);
});

t.test('the drain ends at once when nothing is in flight', async (t) => {
  t.ok(await within(5_000, new InFlight().drained()));
});

t.test('the drain ends with the last one, in whichever order they leave', async (t) => {
  const inFlight = new InFlight();
  const leaves = [inFlight.enter(), inFlight.enter(), inFlight.enter()];
  let drained = false;
  const drain = inFlight.drained().then(() => {
    drained = true;
  });
  leaves[1]?.();
  leaves[0]?.();
  await new Promise((resolve) => setImmediate(resolve));
  t.notOk(drained, 'one is still in flight');
  leaves[2]?.();
  t.ok(await within(5_000, drain));
});

t.test('several can wait for the same drain, and again for the next', async (t) => {
  const inFlight = new InFlight();
  for (let round = 0; round < 3; round += 1) {
    const leave = inFlight.enter();
    const drains = Promise.all([inFlight.drained(), inFlight.drained()]);
    leave();
    t.ok(await within(5_000, drains));
  }
});

t.test('who enters during the drain is waited for too', async (t) => {
  const inFlight = new InFlight();
  const first = inFlight.enter();
  let drained = false;
  const drain = inFlight.drained().then(() => {
    drained = true;
  });
  const second = inFlight.enter();
  first();
  await new Promise((resolve) => setImmediate(resolve));
  t.notOk(drained);
  second();
  t.ok(await within(5_000, drain));
});

t.test(
  'a worker thread that has the buffer sees the count, and holds the drain until it leaves',
  async (t) => {
    const inFlight = new InFlight();
    const leave = inFlight.enter();
    // The layout of the buffer is known to InFlight alone, so the thread uses the class as well. Not every runner's
    // loader reaches into threads: the types are taken off here.
    const source = readFileSync(join(ROOT, 'src/server/in-flight.ts'), 'utf8');
    const options = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
    const { outputText } = ts.transpileModule(source, { compilerOptions: options });
    const worker = new Worker(
      `const { parentPort, workerData } = require('node:worker_threads');
     import(workerData.module).then(({ InFlight }) => {
       const inFlight = new InFlight(workerData.buffer);
       const seen = inFlight.count;
       const leave = inFlight.enter();
       parentPort.once('message', () => { leave(); leave(); });
       parentPort.postMessage(seen);
     });`,
      {
        eval: true,
        execArgv: [],
        workerData: {
          buffer: inFlight.buffer,
          module: `data:text/javascript,${encodeURIComponent(outputText)}`,
        },
      },
    );
    t.teardown(() => worker.terminate());
    const [seen] = await once(worker, 'message');
    t.equal(seen, 1);
    t.equal(inFlight.count, 2);

    leave();
    t.equal(inFlight.count, 1);
    let drained = false;
    const drain = inFlight.drained().then(() => {
      drained = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    t.notOk(drained, 'the thread holds it');
    worker.postMessage('leave');
    t.ok(await within(10_000, drain), 'and its leaving wakes the drain');
    t.equal(inFlight.count, 0);
  },
);

t.test('what is entered by name is held by it, once, until it leaves', async (t) => {
  const inFlight = new InFlight();
  const first = inFlight.enter('job 17');
  const second = inFlight.of('abc-1').enter('job 17');
  inFlight.enter();
  t.equal(inFlight.count, 3);
  t.match(inFlight.holds, [
    { name: 'job 17', request: undefined },
    { name: 'job 17', request: 'abc-1' },
  ]);
  first();
  first();
  t.equal(inFlight.count, 2);
  t.match(inFlight.holds, [{ request: 'abc-1' }]);
  second();
  t.strictSame(inFlight.holds, []);
});

t.test('a name has 1 to 128 characters', async (t) => {
  const inFlight = new InFlight();
  const want = 'inFlight.enter: want a name of 1 to 128 characters, not all spaces, got ';
  const wrong: [unknown, string][] = [
    ['', '""'],
    [' ', '" "'],
    ['x'.repeat(129), '129 characters'],
    [17, 'number'],
    [null, 'object'],
  ];
  for (const [name, got] of wrong)
    t.throws(() => inFlight.enter(name as string), new TypeError(`${want}${got}`));
  t.equal(inFlight.count, 0, 'and what is refused is not counted');
  inFlight.enter('x'.repeat(128));
  t.equal(inFlight.count, 1);
});

t.test('after the drain nothing enters', async (t) => {
  const inFlight = new InFlight();
  const leave = inFlight.enter();
  t.equal(inFlight.closeIfIdle(), 1);
  inFlight.enter('while something is in flight')();
  leave();
  t.equal(inFlight.closeIfIdle(), 0);
  t.throws(() => inFlight.enter('job 18'), /the drain is over/);
  t.throws(() => new InFlight(inFlight.buffer).enter(), /the drain is over/, 'in another thread, too');
  t.equal(inFlight.count, 0);
});
