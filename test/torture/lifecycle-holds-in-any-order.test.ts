import fc from 'fast-check';
import t, { type Test } from 'tap';
import { Doors, type Embedded, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';

/** What can happen to a service, in any order. */
const event = fc.oneof(
  fc.constantFrom('ask', 'hold', 'finish', 'leave', 'fail', 'half', 'connect', 'pipeline'),
  fc.constantFrom('ask', 'hold', 'reload'),
  fc.constantFrom('stop', 'crash', 'force', 'emergency', 'health'),
);

interface Held {
  readonly name: string;
  readonly client: RawClient;
}

/**
 * Plays one order of events on a service of its own, and holds what can be seen after each against what was promised:
 * before the first order to stop a request is served, after it none is; what was admitted is answered, or was cut.
 */
async function playOrder(t: Test, events: readonly string[]): Promise<void> {
  const doors = new Doors();
  let dispatched = 0;
  const made: Embedded = await running(t, {
    config: { shutdownTimeoutMs: 60_000 },
    app: {
      routes(router) {
        router.get('/', (_request, response) => {
          dispatched += 1;
          response.end('ok');
        });
        router.get('/fail', () => {
          dispatched += 1;
          throw new Error('on purpose');
        });
        router.get('/hold/:name', async (_request, response, { params, log }) => {
          dispatched += 1;
          log.info(`holding ${params.name}`);
          await doors.wait(params.name ?? '');
          response.end('held');
        });
      },
    },
  });
  const { service, port } = made;
  const held: Held[] = [];
  const clients: RawClient[] = [];
  let stopped = false;
  let forced = false;
  let crashed = false;
  let late = false;
  let serial = 0;
  const open = async (): Promise<RawClient | undefined> => {
    const client = await RawClient.open(port).catch(() => undefined);
    if (client !== undefined) clients.push(client);
    return client;
  };
  const trace = (what: string): string => `${what} in ${events.join(' ')}`;
  // While something is held the service cannot have left, so every request has an answer.
  const sure = (): boolean => !stopped || (held.length > 0 && !forced);

  for (const what of events) {
    const before = dispatched;
    if (what === 'ask' || what === 'fail' || what === 'health') {
      const client = await open();
      if (client === undefined) t.notOk(sure(), trace('a refused connection'));
      else {
        const path = { ask: '/', fail: '/fail', health: '/health' }[what];
        const answer = await client
          .get(path)
          .response()
          .catch(() => undefined);
        const expected: number = stopped ? 503 : what === 'fail' ? 500 : 200;
        if (sure() || answer !== undefined) t.equal(answer?.status, expected, trace(what));
      }
      if (stopped) t.equal(dispatched, before, trace('the lock'));
    } else if (what === 'hold' && !stopped) {
      serial += 1;
      const name = String(serial);
      const client = (await open()) as RawClient;
      client.get(`/hold/${name}`);
      await made.line(`holding ${name}`);
      held.push({ name, client });
    } else if (what === 'pipeline' && sure()) {
      const client = (await open()) as RawClient;
      client.get('/').get('/').get('/');
      for (const status of stopped ? [503, 503, 503] : [200, 200, 200]) {
        t.equal((await client.response()).status, status, trace(what));
      }
    } else if (what === 'finish' && held.length > 0) {
      const { name, client } = held.shift() as Held;
      doors.open(name);
      const answer = await client.response().catch(() => undefined);
      if (!forced) t.equal(answer?.status, 200, trace('what was admitted is answered'));
    } else if (what === 'leave' && held.length > 0) {
      const { client, name } = held.shift() as Held;
      client.destroy();
      doors.open(name);
    } else if (what === 'half') (await open())?.write('GET / HT');
    else if (what === 'connect') await open();
    else if (what === 'stop') void service.stop();
    else if (what === 'crash') {
      // The code of a service that has stopped already may be settled.
      if (service.state === 'stopped') late = true;
      else crashed = true;
      void service.crash('test', new Error('on purpose'));
    } else if (what === 'emergency') void service.emergencyShutdown('test');
    else if (what === 'force') {
      forced = true;
      void service.force('test');
    }
    if (['stop', 'crash', 'force', 'emergency'].includes(what)) {
      stopped = true;
      t.not(service.state, 'running', trace('locked in the same turn'));
    }
    t.equal(service.acceptingRequests, !stopped, trace('accepting'));
    if (!forced) t.ok(service.inFlight >= held.length, trace('in flight'));
  }

  const report = service.stop();
  for (const { name } of held) doors.open(name);
  const { exit_code, cut } = await report;
  t.equal(service.state, 'stopped');
  t.equal(service.inFlight, 0, trace('in flight at the end'));
  if (!forced) t.strictSame(cut, [], trace('nothing is cut before the deadline'));
  const worst = crashed ? 70 : cut.length > 0 ? 1 : 0;
  const possible = late ? [worst, 70] : [worst];
  if (!forced || cut.length > 0) t.ok(possible.includes(exit_code), trace(`the exit code ${exit_code}`));
  for (const client of clients) client.destroy();
}

t.test('in any order of requests, failures and orders to stop, the promises hold', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(event, { minLength: 1, maxLength: 14 }), (events) => playOrder(t, events)),
    { numRuns: 60, interruptAfterTimeLimit: 30_000, endOnFailure: true },
  );
});
