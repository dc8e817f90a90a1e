import type { RawClient } from '../../support/raw-client.ts';
import { assertInFlight, leaves, type Observed, type Scenario, saw, say, sayExit } from '../scenario.ts';
import type { Subject } from '../subject.ts';

const AT_ONCE = 'exits at once';

function leave(name: string, ideal: string, play: (subject: Subject) => Promise<Observed>): Scenario {
  return { name, promise: 'leave', ideal, play };
}

/** Ends the last request in flight, and sees how long the server takes to leave then. */
async function leavesAfterLast(subject: Subject): Promise<Observed> {
  const held = await subject.hold();
  await subject.stopping();
  const upload = await held.finish();
  const sinceMs = performance.now();
  const { pass, outcome } = await leaves(subject, sinceMs);
  return saw(pass && upload.status === 200, `${say(upload)}, then ${outcome}`);
}

export const leaveScenarios: readonly Scenario[] = [
  leave('leave-idle', AT_ONCE, async (subject) => {
    subject.signal('SIGTERM');
    return leaves(subject);
  }),
  leave(
    'leave-with-idle-connections',
    `${AT_ONCE}, with 200 idle kept-alive connections open`,
    async (subject) => {
      await subject.idle(200);
      subject.signal('SIGTERM');
      return leaves(subject);
    },
  ),
  leave(
    'leave-with-silent-connections',
    `${AT_ONCE}, with 50 connections that never sent a byte`,
    async (subject) => {
      await subject.openMany(50);
      await subject.settled();
      subject.signal('SIGTERM');
      return leaves(subject);
    },
  ),
  leave('leave-with-half-sent-heads', `${AT_ONCE}, with 20 requests half sent`, async (subject) => {
    for (const wire of await subject.openMany(20)) wire.write('GET / HTTP/1.1\r\nHost: 127.0');
    await subject.settled();
    subject.signal('SIGTERM');
    return leaves(subject);
  }),
  leave(
    'leave-with-half-sent-on-idle',
    `${AT_ONCE}, with 20 requests half sent on used connections`,
    async (subject) => {
      for (const wire of await subject.idle(20)) wire.write('GET / HTT');
      await subject.settled();
      subject.signal('SIGTERM');
      return leaves(subject);
    },
  ),
  leave('leave-after-last', 'exits at once when the last request in flight has ended', leavesAfterLast),
  leave('leave-after-last-with-idle', 'the same with 100 idle connections open', async (subject) => {
    await subject.idle(100);
    return leavesAfterLast(subject);
  }),
  leave(
    'leave-after-last-with-silent',
    'the same with silent and half-sent connections open',
    async (subject) => {
      await subject.openMany(20);
      for (const wire of await subject.openMany(20)) wire.write('GET / HTTP/1.1\r\nHost: 127.0');
      return leavesAfterLast(subject);
    },
  ),
  leave(
    'leave-after-large-answer',
    'exits when a slow reader has taken the last of 20 MB',
    async (subject) => {
      const wire = (await subject.open()).get('/large');
      await wire.received(1);
      wire.socket.pause();
      await subject.settled();
      await subject.stopping();
      wire.socket.resume();
      const answer = await wire.answer({ ms: 15_000 });
      const { pass, outcome } = await leaves(subject, performance.now());
      return saw(pass && answer.status === 200, `${say(answer)}, then ${outcome}`);
    },
  ),
  leave('leave-when-client-gone', 'exits when the client of the last request has gone', async (subject) => {
    const wire = (await subject.open()).get('/hang');
    await subject.settled();
    assertInFlight(subject, wire);
    await subject.stopping();
    if ((await subject.exit(200)) !== undefined)
      return saw(false, 'has left before, with a request in flight');
    const sinceMs = performance.now();
    wire.socket.resetAndDestroy();
    return leaves(subject, sinceMs);
  }),
  leave(
    'leave-under-new-connections',
    'exits when the last request has ended, although new ones keep coming',
    async (subject) => {
      const held = await subject.hold();
      await subject.stopping();
      const knocking = knock(subject);
      const upload = await held.finish();
      const { pass, outcome } = await leaves(subject, performance.now());
      knocking.stop();
      return saw(pass && upload.status === 200, `${say(upload)}, then ${outcome}`);
    },
  ),
  leave('leave-nothing-behind', 'exits, and then the port refuses connections', async (subject) => {
    const [idle] = (await subject.idle(1)) as [RawClient];
    subject.signal('SIGTERM');
    const { pass, outcome } = await leaves(subject);
    const after = await subject.open();
    const refused = after.end === 'ECONNREFUSED';
    const ended = (await idle.endedWithin(1_000)) !== undefined;
    return saw(
      pass && refused && ended,
      `${outcome}; then ${refused ? 'connection refused' : 'connections are accepted'}${ended ? '' : '; an old one is still open'}`,
    );
  }),
];

const SHORT = { SHUTDOWN_TIMEOUT: '2' };
const TIMEOUT_MS = 2_000;
/** A server under load may be late at its deadline, but not by a multiple of it. */
const LATE_MS = 2_500;
const CUT = 'exits non-zero at its deadline of 2 s';

function deadline(name: string, ideal: string, play: (subject: Subject) => Promise<Observed>): Scenario {
  return { name, promise: 'deadline', ideal, env: SHORT, play };
}

async function cut(subject: Subject): Promise<Observed> {
  const exit = await subject.exit(TIMEOUT_MS + LATE_MS);
  const ms = exit === undefined ? 0 : exit.atMs - subject.signalledMs;
  const nonZero = exit !== undefined && exit.code !== null && exit.code !== 0;
  const words = exit === undefined ? 'still running 2.5 s after it' : sayExit(exit, subject.signalledMs);
  return saw(nonZero && ms > TIMEOUT_MS - 500, words);
}

export const deadlineScenarios: readonly Scenario[] = [
  deadline('deadline-hanging-handler', CUT, async (subject) => {
    const wire = (await subject.open()).get('/hang');
    await subject.settled();
    assertInFlight(subject, wire);
    subject.signal('SIGTERM');
    return cut(subject);
  }),
  deadline('deadline-stalled-upload', CUT, async (subject) => {
    (await subject.open()).request('POST', '/upload', { 'Content-Length': '1000' }).write('x');
    await subject.settled();
    subject.signal('SIGTERM');
    return cut(subject);
  }),
  deadline('deadline-reader-that-never-reads', CUT, async (subject) => {
    const wire = (await subject.open()).get('/large');
    await wire.received(1);
    wire.socket.pause();
    await subject.settled();
    subject.signal('SIGTERM');
    return cut(subject);
  }),
  deadline(
    'deadline-endless-stream',
    `${CUT}, and the client can tell that the answer is not whole`,
    async (subject) => {
      const wire = (await subject.open()).get('/stream?ms=600000');
      await wire.received(1);
      subject.signal('SIGTERM');
      const { pass, outcome } = await cut(subject);
      const answer = await wire.answer({ ms: 1_000 });
      return saw(pass && answer.status === undefined, `${outcome}; the client: ${say(answer)}`);
    },
  ),
  deadline('deadline-finishes-the-others', `${CUT}; what ends before it gets its 200`, async (subject) => {
    const hanging = (await subject.open()).get('/hang');
    const slow = (await subject.open()).get('/slow?ms=1000');
    await subject.settled();
    assertInFlight(subject, hanging, slow);
    subject.signal('SIGTERM');
    const answer = await slow.answer();
    const { pass, outcome } = await cut(subject);
    return saw(pass && answer.status === 200, `${say(answer)}; ${outcome}`);
  }),
  deadline('deadline-under-new-connections', `${CUT}, although new requests keep coming`, async (subject) => {
    (await subject.open()).get('/hang');
    await subject.settled();
    await subject.stopping();
    const knocking = knock(subject);
    const observed = await cut(subject);
    knocking.stop();
    return observed;
  }),
  {
    name: 'deadline-not-for-a-stalled-upload',
    promise: 'deadline',
    ideal:
      'an upload that stands still does not cost the whole grace period of 20 s: gone, non-zero, within 10 s',
    async play(subject) {
      (await subject.open()).request('POST', '/upload', { 'Content-Length': '1000' }).write('x');
      await subject.settled();
      subject.signal('SIGTERM');
      const exit = await subject.exit(10_000);
      return saw(
        exit !== undefined && exit.code !== null && exit.code !== 0,
        exit === undefined ? 'still running after 10 s' : sayExit(exit, subject.signalledMs),
      );
    },
  },
];

/** Ten clients that open a connection, ask, and do it again, until they are stopped. */
function knock(subject: Subject): { stop: () => void } {
  let stopped = false;
  const client = async (): Promise<void> => {
    while (!stopped && !(await subject.open()).end) {
      await subject.ask('/');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  for (let index = 0; index < 10; index += 1) void client();
  return {
    stop: () => {
      stopped = true;
    },
  };
}
