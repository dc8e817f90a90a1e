import { setTimeout as delay } from 'node:timers/promises';
import type { Outcome, RawClient } from '../../support/raw-client.ts';
import { isAccountedFor, isRefusal, type Observed, type Scenario, saw, say, sayAll } from '../scenario.ts';
import { CannotRun, type Subject } from '../subject.ts';

const MANY = 30;

/** How long the event loop stands still: first for the signal to wait in front of it, then for the requests. */
const BLOCK_MS = { signal: 300, requests: 500 };

/** The signal and requests in one instant, with an upload in flight, so that the server may not have left by then. */
function instant(name: string, ideal: string, play: (subject: Subject) => Promise<Observed>): Scenario {
  return {
    name,
    promise: 'instant',
    ideal,
    async play(subject) {
      await subject.hold();
      return play(subject);
    },
  };
}

/**
 * Signals, and sends when the server is about to act on the signal and cannot see what comes meanwhile. That takes
 * luck with a server that is idle, so its event loop is blocked twice. While it is for the first time, the signal comes and
 * a second request to block. It finds both when it looks again, and libuv takes signals last: so while it is blocked
 * for the second time, what comes is behind a signal that is acted on before anything else is read.
 */
async function inOneInstant(
  subject: Subject,
  send: () => readonly RawClient[],
  around?: Around,
): Promise<Outcome[]> {
  const [second] = (await subject.idle(1)) as [RawClient];
  const first = (await subject.open()).get(`/block?ms=${BLOCK_MS.signal}`);
  if (!(await first.received(1)) || first.end !== undefined)
    throw new CannotRun('GET /block: want its head before it blocks, got none');
  around?.before();
  await delay(20);
  subject.signal('SIGTERM');
  around?.with();
  await delay(20);
  await second.get(`/block?ms=${BLOCK_MS.requests}`).received(1);
  return Promise.all(send().map((wire) => wire.answer()));
}

/** What is sent just before the signal, and with it. */
interface Around {
  before(): void;
  with(): void;
}

/** A connection that the server has ended before the request could be written is not a request that it has lost. */
function judge(outcomes: readonly Outcome[]): Observed {
  return saw(outcomes.every(isAccountedFor), sayAll(outcomes));
}

const EACH = `each of ${MANY} requests is answered, with 200 or 503`;

export const instantScenarios: readonly Scenario[] = [
  instant('instant-idle-connections', EACH, async (subject) => {
    const idle = await subject.idle(MANY);
    return judge(await inOneInstant(subject, () => idle.map((wire) => wire.get('/'))));
  }),
  instant('instant-accept-queue', EACH, async (subject) =>
    judge(await inOneInstant(subject, () => Array.from({ length: MANY }, () => subject.begin().get('/')))),
  ),
  instant('instant-silent-connections', EACH, async (subject) => {
    const silent = await subject.openMany(MANY);
    await subject.settled();
    return judge(await inOneInstant(subject, () => silent.map((wire) => wire.get('/'))));
  }),
  instant('instant-half-sent-heads', EACH, async (subject) => {
    const half = await subject.openMany(MANY);
    for (const wire of half) wire.write('GET / HTTP/1.1\r\nHo');
    await subject.settled();
    return judge(await inOneInstant(subject, () => half.map((wire) => wire.write('st: a\r\n\r\n'))));
  }),
  instant(
    'instant-pipelined',
    'each of three requests on one connection is answered, with 200 or 503',
    async (subject) => {
      const [wire] = (await subject.idle(1)) as [RawClient];
      const [first] = (await inOneInstant(subject, () => [
        wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(3)),
      ])) as [Outcome];
      const outcomes = [first, await wire.answer(), await wire.answer()];
      return saw(outcomes.every(isAccountedFor), outcomes.map(say).join(' | '));
    },
  ),
  instant(
    'instant-uploads',
    'each of 10 uploads of 1 MB on idle connections is answered, with 200 or 503',
    async (subject) => {
      const idle = await subject.idle(10);
      const size = 1024 * 1024;
      return judge(
        await inOneInstant(subject, () =>
          idle.map((wire) =>
            wire.request('POST', '/upload', { 'Content-Length': String(size) }).write(Buffer.alloc(size)),
          ),
        ),
      );
    },
  ),
  instant(
    'requests-around-the-signal',
    'each of 300 requests is answered, of which a third each come just before, with and after the signal',
    async (subject) => {
      const idle = await subject.idle(300);
      const ask = (from: number) => idle.slice(from, from + 100).map((wire) => wire.get('/'));
      const around = { before: () => void ask(0), with: () => void ask(100) };
      const after = await inOneInstant(subject, () => ask(200), around);
      const others = await Promise.all(idle.slice(0, 200).map((wire) => wire.answer()));
      return judge([...others, ...after]);
    },
  ),
  withTheLast(
    'with-the-last-answer',
    `${MANY} requests that come on idle connections with the end of the last one in flight get 503`,
    async (subject) => {
      const idle = await subject.idle(MANY);
      return () => idle.map((wire) => wire.get('/'));
    },
  ),
  withTheLast(
    'queued-with-the-last-answer',
    `${MANY} connections in the accept queue at the end of the last request get 503`,
    async (subject) => () => begin(subject, (wire) => wire.get('/')),
  ),
  withTheLast(
    'half-closed-with-the-last-answer',
    'the same when their clients have ended their side after the request',
    async (subject) => () => begin(subject, (wire) => wire.get('/').socket.end()),
  ),
];

function begin(subject: Subject, ask: (wire: RawClient) => void): RawClient[] {
  const wires = Array.from({ length: MANY }, () => subject.begin());
  for (const wire of wires) ask(wire);
  return wires;
}

/**
 * Requests that come with the end of the last one in flight: the server must not leave over them. It is stopped
 * (SIGSTOP) while all of it is sent, and finds it together when it goes on.
 */
function withTheLast(
  name: string,
  ideal: string,
  prepare: (subject: Subject) => Promise<() => readonly RawClient[]>,
): Scenario {
  return {
    name,
    promise: 'instant',
    ideal,
    async play(subject) {
      const held = await subject.hold();
      const send = await prepare(subject);
      await subject.stopping();
      subject.freeze();
      const upload = held.finish();
      const wires = send();
      await Promise.all(wires.map((wire) => wire.connected()));
      // What is written has to be in the kernel before the server looks.
      await delay(50);
      subject.thaw();
      const outcomes = await Promise.all(wires.map((wire) => wire.answer()));
      return saw(
        outcomes.every(isRefusal) && (await upload).status === 200,
        `${sayAll(outcomes)}; upload: ${say(await upload)}`,
      );
    },
  };
}
