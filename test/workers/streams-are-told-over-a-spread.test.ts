import { join } from 'node:path';
import t from 'tap';
import { ROOT } from '../support/root.ts';
import { ServiceProcess } from '../support/service-process.ts';
import { type Ended, openStreams } from '../support/streams.ts';

const APP = join(ROOT, 'test/fixtures/streams-app.mjs');
const SPREAD_S = 3;
const EACH = 200;

const GOODBYE = ': the service stops\nretry: 1234\n\n';

for (const workers of [0, 2]) {
  t.test(`WORKERS=${workers}: each stream is told, evenly over DRAIN_SPREAD, and none is cut`, async (t) => {
    const service = await ServiceProcess.running(t, {
      args: [APP],
      env: { WORKERS: String(workers), DRAIN_SPREAD: String(SPREAD_S) },
    });
    const streams = await openStreams(service.port, EACH);
    t.teardown(() => {
      for (const stream of [...streams.events, ...streams.sockets]) stream.destroy();
    });
    await service.statusWhen(({ in_flight }) => in_flight.count === 2 * EACH);
    const stoppedMs = performance.now();
    service.signal('SIGTERM');
    const events = await Promise.all(streams.events.map(({ ended }) => ended));
    const sockets = await Promise.all(streams.sockets.map(({ ended }) => ended));

    t.equal(events.filter(({ text = '' }) => text.includes(GOODBYE)).length, EACH, 'told to come back');
    t.equal(
      events.filter(({ text = '' }) => text.endsWith('0\r\n\r\n')).length,
      EACH,
      'each answer is whole',
    );
    t.equal(sockets.filter(({ code }) => code === 1012).length, EACH, 'closed with 1012');
    t.equal(sockets.filter(({ reason }) => reason === 'service restart').length, EACH);
    // Only what cannot be too soon: a busy machine may tell them later.
    const all: readonly Ended[] = [...events, ...sockets];
    const early = all.filter(({ atMs }) => atMs - stoppedMs < (SPREAD_S * 1_000) / 3).length;
    t.ok(early < EACH, `${early} of ${2 * EACH} in the first third`);
    t.ok(latest(all) - stoppedMs > SPREAD_S * 800, 'the last one at its end');
    t.strictSame(await service.exited, { code: 0, signal: null });
    t.match(service.report(), {
      in_flight_at_lock: 2 * EACH,
      completed: 2 * EACH,
      aborted: 0,
      closed: 0,
      cut: [],
    });
  });
}

t.test('without DRAIN_SPREAD all are told at once', async (t) => {
  const service = await ServiceProcess.running(t, { args: [APP] });
  const streams = await openStreams(service.port, 150);
  service.signal('SIGTERM');
  const events = await Promise.all(streams.events.map(({ ended }) => ended));
  const sockets = await Promise.all(streams.sockets.map(({ ended }) => ended));
  t.ok(events.every(({ text = '' }) => text.includes(GOODBYE)));
  t.ok(sockets.every(({ code }) => code === 1012));
  t.equal((await service.exited).code, 0);
  t.match(service.report(), { completed: 300, cut: [] });
});

t.test('who is not told before the deadline is cut, by name', async (t) => {
  const env = { DRAIN_SPREAD: '60', SHUTDOWN_TIMEOUT: '61' };
  const service = await ServiceProcess.running(t, { args: [APP], env });
  const { events } = await openStreams(service.port, 1);
  service.signal('SIGINT');
  await service.line('Service state: STOPPING');
  t.match((await events[0]?.ended)?.text, GOODBYE, 'the first is told at once');
  service.signal('SIGINT');
  t.equal((await service.exited).code, 1);
  t.match(service.output, 'Cut in-flight request: GET /chat');
});

function latest(ended: readonly Ended[]): number {
  return Math.max(...ended.map(({ atMs }) => atMs));
}
