import { setTimeout as delay } from 'node:timers/promises';
import type { Answer, Outcome, RawClient } from '../../support/raw-client.ts';
import {
  assertInFlight,
  closes,
  isAnswered,
  isRefusal,
  type Observed,
  type Scenario,
  saw,
  say,
  sayAll,
  sayEnd,
} from '../scenario.ts';
import type { Subject } from '../subject.ts';

const LARGE_BYTES = 20 * 1024 * 1024;
/** A slow answer: long enough to be in flight at the signal on a slow machine. */
const SLOW = '/slow?ms=1500';
const STREAM = '/stream?ms=1500';

function finish(name: string, ideal: string, play: (subject: Subject) => Promise<Observed>): Scenario {
  return { name, promise: 'finish', ideal, play };
}

function whole(outcome: Outcome): outcome is Answer {
  return outcome.status === 200;
}

function uploaded(outcome: Outcome, bytes: number): Observed {
  const text = outcome.status === undefined ? '' : outcome.body.trim();
  return saw(
    whole(outcome) && text.includes(String(bytes)),
    `${say(outcome)}${text && `; it says ${text.slice(0, 60)}`}`,
  );
}

/** Has these requests in flight when the signal comes. */
async function slowAtSignal(subject: Subject, wires: readonly RawClient[], text: string): Promise<void> {
  for (const wire of wires) wire.write(text);
  await subject.settled();
  assertInFlight(subject, ...wires);
  subject.signal('SIGTERM');
}

const GET_SLOW = `GET ${SLOW} HTTP/1.1\r\nHost: a\r\n\r\n`;

export const finishScenarios: readonly Scenario[] = [
  finish('slow-handler', '200', async (subject) => {
    const wire = await subject.open();
    await slowAtSignal(subject, [wire], GET_SLOW);
    const outcome = await wire.answer();
    return saw(whole(outcome), say(outcome));
  }),
  finish('slow-handlers', '200 to each of 20', async (subject) => {
    const wires = await subject.openMany(20);
    await slowAtSignal(subject, wires, GET_SLOW);
    const outcomes = await Promise.all(wires.map((wire) => wire.answer()));
    return saw(outcomes.every(whole), sayAll(outcomes));
  }),
  finish('says-close', '200 with Connection: close, then the end of the connection', async (subject) => {
    const wire = await subject.open();
    await slowAtSignal(subject, [wire], GET_SLOW);
    const outcome = await wire.answer();
    const end = await wire.endedWithin(3_000);
    const after = end === undefined ? 'still open after 3 s' : sayEnd(end);
    return saw(whole(outcome) && closes(outcome) && end === 'fin', `${say(outcome)}; then ${after}`);
  }),
  finish('http-1.0-in-flight', '200', async (subject) => {
    const wire = await subject.open();
    await slowAtSignal(subject, [wire], `GET ${SLOW} HTTP/1.0\r\n\r\n`);
    const outcome = await wire.answer();
    return saw(whole(outcome), say(outcome));
  }),
  finish('upload', 'the upload goes on and is answered with 200', async (subject) => {
    const held = await subject.hold();
    await subject.stopping();
    return uploaded(await held.finish(), 10_000);
  }),
  finish('chunked-upload', 'the upload goes on and is answered with 200', async (subject) => {
    const wire = (await subject.open()).request('POST', '/upload', { 'Transfer-Encoding': 'chunked' });
    wire.write('5\r\nhello\r\n');
    await subject.settled();
    await subject.stopping();
    for (let piece = 0; piece < 20; piece += 1) {
      wire.write('5\r\nhello\r\n');
      await delay(5);
    }
    return uploaded(await wire.write('0\r\n\r\n').answer(), 105);
  }),
  finish(
    'large-upload',
    '10 MB of which half come after the signal are answered with 200',
    async (subject) => {
      const half = Buffer.alloc(5 * 1024 * 1024);
      const wire = (await subject.open()).request('POST', '/upload', {
        'Content-Length': String(2 * half.length),
      });
      wire.write(half);
      await subject.settled();
      await subject.stopping();
      return uploaded(await wire.write(half).answer(), 2 * half.length);
    },
  ),
  finish(
    'upload-after-continue',
    'an upload that was told 100 before the signal is answered with 200',
    async (subject) => {
      const wire = await subject.open();
      wire.request('POST', '/upload', { 'Content-Length': '5', Expect: '100-continue' });
      await wire.received('HTTP/1.1 100 Continue\r\n\r\n'.length);
      await subject.stopping();
      return uploaded(await wire.write('hello').answer(), 5);
    },
  ),
  finish('stream', 'the streamed answer comes whole', async (subject) => {
    const wire = (await subject.open()).get(STREAM);
    await wire.received(1);
    const begun = wire.pending !== '';
    subject.signal('SIGTERM');
    const outcome = await wire.answer();
    const text = outcome.status === undefined ? '' : outcome.body;
    return saw(begun && whole(outcome) && text.endsWith('last\n'), say(outcome));
  }),
  finish(
    'large-answer-to-slow-reader',
    '20 MB arrive whole at a client that reads only after a while',
    async (subject) => {
      const wire = (await subject.open()).get('/large');
      await wire.received(1);
      wire.socket.pause();
      await subject.settled();
      await subject.stopping();
      await delay(500);
      wire.socket.resume();
      const outcome = await wire.answer({ ms: 15_000 });
      const bytes = outcome.status === undefined ? 0 : outcome.body.length;
      return saw(
        whole(outcome) && bytes === LARGE_BYTES,
        `${say(outcome)}${bytes > 0 ? `, ${bytes} bytes` : ''}`,
      );
    },
  ),
  finish(
    'pipelined-in-flight',
    'each of three slow requests on one connection is answered',
    async (subject) => {
      const wire = await subject.open();
      await slowAtSignal(subject, [wire], GET_SLOW.repeat(3));
      const outcomes = [await wire.answer(), await wire.answer(), await wire.answer()];
      return saw(outcomes.every(isAnswered) && outcomes[0]?.status === 200, outcomes.map(say).join(' | '));
    },
  ),
  finish(
    'pipelined-says-close-last',
    'of two pipelined answers only the last says Connection: close',
    async (subject) => {
      const wire = await subject.open();
      await slowAtSignal(subject, [wire], GET_SLOW.repeat(2));
      const outcomes = [await wire.answer(), await wire.answer()];
      const [first, last] = outcomes as [Outcome, Outcome];
      return saw(
        whole(first) && !closes(first) && isAnswered(last) && last.status !== undefined && closes(last),
        outcomes.map(say).join(' | '),
      );
    },
  ),
  finish(
    'pipelined-behind-in-flight',
    '200 to what is in flight, then 503 to what came after the signal',
    async (subject) => {
      const wire = (await subject.open()).get(SLOW);
      await subject.settled();
      assertInFlight(subject, wire);
      await subject.stopping();
      wire.get('/');
      const outcomes = [await wire.answer(), await wire.answer()];
      const [first, last] = outcomes as [Outcome, Outcome];
      return saw(whole(first) && isRefusal(last), outcomes.map(say).join(' | '));
    },
  ),
];
