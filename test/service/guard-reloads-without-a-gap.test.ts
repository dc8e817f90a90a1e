import t, { type Test } from 'tap';
import { GuardedProgram } from '../support/guarded-program.ts';
import { RawClient } from '../support/raw-client.ts';
import { count, gone } from '../support/workers-service.ts';

/** Asks on kept connections until `goes` says no. @returns every status there was */
async function load(port: number, goes: () => boolean): Promise<(number | undefined)[]> {
  const statuses: (number | undefined)[] = [];
  const one = async (method: string): Promise<void> => {
    let client = await RawClient.open(port);
    while (goes()) {
      if (client.end !== undefined) client = await RawClient.open(port);
      client.request(method, '/pid', method === 'POST' ? { 'Content-Length': '1' } : {});
      if (method === 'POST') client.write('x');
      statuses.push((await client.answer({ ms: 60_000 })).status);
    }
    client.destroy();
  };
  await Promise.all(['GET', 'POST', 'GET', 'POST'].map(one));
  return statuses;
}

async function reloadUnderLoad(t: Test, guarded: GuardedProgram, times: number): Promise<void> {
  let done = 0;
  const loaded = load(guarded.port, () => done < times);
  for (; done < times; done += 1) await guarded.reload();
  const statuses = await loaded;
  t.strictSame(
    statuses.filter((status) => status !== 200),
    [],
    `${statuses.length} requests`,
  );
  t.equal(count(guarded.service.lines, 'Reload refused'), 0);
}

t.test('a reload puts a new instance in place, and the old one finishes what it has', async (t) => {
  const guarded = await GuardedProgram.running(t);
  const [first = 0] = await guarded.pids();
  const held = await guarded.hold('a');
  await guarded.reload();
  const now = JSON.parse((await guarded.get('/pid')).body).pid;
  t.not(now, first);
  guarded.open('a');
  t.match(JSON.parse((await held.response()).body), { pid: first });
  await gone(first);
  t.strictSame(await guarded.pids(), [now]);
  await reloadUnderLoad(t, guarded, 3).catch(t.threw);
});

t.test('a broken one is refused, and the old one serves on', async (t) => {
  const guarded = await GuardedProgram.running(t, { habit: 'broken-later' });
  const pids = await guarded.pids();
  guarded.open('broken');
  await guarded.reload();
  t.match(
    guarded.service.output,
    'Reload refused, generation 1 goes on serving: GUARD_COMMAND: node ended with 4 before it was ready',
  );
  t.strictSame(await guarded.pids(), pids);
  t.equal((await guarded.get('/pid')).status, 200);
});

t.test('where two cannot run at once, requests are held until there is one again', async (t) => {
  const guarded = await GuardedProgram.running(t, { env: { GUARD_OVERLAP: 'false', GUARD_HOLD: '60' } });
  const [first = 0] = await guarded.pids();
  await reloadUnderLoad(t, guarded, 2);
  t.not((await guarded.pids())[0], first);
});

t.test('a request is held no longer than GUARD_HOLD, and told that it is safe', async (t) => {
  const guarded = await GuardedProgram.running(t, {
    env: { GUARD_OVERLAP: 'false', GUARD_HOLD: '0.2', MAX_IN_FLIGHT: '2' },
  });
  const busy = await guarded.hold('a');
  guarded.service.signal('SIGHUP');
  await guarded.statusWhen(({ holding }) => holding);
  const client = (await guarded.connect()).get('/pid');
  await guarded.service.statusWhen(({ in_flight }) => in_flight.count === 2);
  const third = await guarded.get('/pid');
  t.equal(JSON.parse(third.body).service_state, 'running', 'what is held counts for MAX_IN_FLIGHT');
  const answer = await client.response();
  t.equal(answer.status, 503);
  t.match(JSON.parse(answer.body), { service_state: 'starting', fail_safe: true });
  guarded.open('a');
  t.equal((await busy.response()).status, 200);
  await guarded.service.line('Reloaded: generation 2');
  t.equal((await guarded.get('/pid')).status, 200);
});

t.test('a stop waits for what is held', async (t) => {
  const guarded = await GuardedProgram.running(t, { env: { GUARD_OVERLAP: 'false', GUARD_HOLD: '60' } });
  const busy = await guarded.hold('a');
  guarded.service.signal('SIGHUP');
  await guarded.statusWhen(({ holding }) => holding);
  const held = (await guarded.connect()).get('/pid');
  await guarded.service.statusWhen(({ in_flight }) => in_flight.count === 2);
  await guarded.service.stop();
  guarded.open('a');
  t.equal((await busy.response()).status, 200);
  t.equal((await held.response()).status, 200, 'the new instance was started for it');
  t.strictSame(await guarded.service.exited, { code: 0, signal: null });
});
