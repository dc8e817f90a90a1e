import { isAnswered, isRefusal, type Observed, type Scenario, saw, say, sayAll } from '../scenario.ts';
import type { Subject } from '../subject.ts';
import type { Outcome, Wire } from '../wire.ts';

const MANY = 30;

/**
 * The signal and requests in one instant. The server's processes are stopped (SIGSTOP) while both are sent, so that
 * they find them together when they go on: what takes luck otherwise happens each time.
 */
function instant(name: string, ideal: string, play: (subject: Subject) => Promise<Observed>): Scenario {
  return { name, promise: 'instant', ideal, play };
}

/** Sends while the server stands still, lets it go on, and waits for every answer. */
async function inOneInstant(subject: Subject, send: () => readonly Wire[]): Promise<Outcome[]> {
  subject.freeze();
  const wires = send();
  // The bytes have to be in the kernel before the server looks.
  await Promise.all(wires.map((wire) => wire.connected()));
  await new Promise((resolve) => setTimeout(resolve, 50));
  subject.signal('SIGTERM');
  subject.thaw();
  return Promise.all(wires.map((wire) => wire.answer()));
}

function judge(outcomes: readonly Outcome[]): Observed {
  return saw(outcomes.every(isAnswered), sayAll(outcomes));
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
      const [wire] = (await subject.idle(1)) as [Wire];
      const [first] = (await inOneInstant(subject, () => [
        wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(3)),
      ])) as [Outcome];
      const outcomes = [first, await wire.answer(), await wire.answer()];
      return saw(outcomes.every(isAnswered), outcomes.map(say).join(' | '));
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
    'instant-while-draining',
    `each of ${MANY} requests is answered while an upload is in flight`,
    async (subject) => {
      const held = await subject.hold();
      const idle = await subject.idle(MANY);
      const outcomes = await inOneInstant(subject, () => idle.map((wire) => wire.get('/')));
      const upload = await held.finish();
      return saw(
        outcomes.every(isAnswered) && upload.status === 200,
        `${sayAll(outcomes)}; upload: ${say(upload)}`,
      );
    },
  ),
  instant(
    'requests-around-the-signal',
    'each of 300 requests written around the signal is answered',
    async (subject) => {
      const idle = await subject.idle(300);
      for (const [index, wire] of idle.entries()) {
        if (index === 150) subject.signal('SIGTERM');
        wire.get('/');
        // Lets the bytes go out, and the answers in.
        if (index % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      return judge(await Promise.all(idle.map((wire) => wire.answer())));
    },
  ),
  instant(
    'with-the-last-answer',
    `${MANY} requests that come with the end of the last one in flight get 503`,
    async (subject) => {
      const held = await subject.hold();
      const idle = await subject.idle(MANY);
      await subject.stopping();
      subject.freeze();
      const upload = held.finish();
      for (const wire of idle) wire.get('/');
      await new Promise((resolve) => setTimeout(resolve, 50));
      subject.thaw();
      const outcomes = await Promise.all(idle.map((wire) => wire.answer()));
      return saw(
        outcomes.every(isRefusal) && (await upload).status === 200,
        `${sayAll(outcomes)}; upload: ${say(await upload)}`,
      );
    },
  ),
  queuedWithTheLast(
    'queued-with-the-last-answer',
    `${MANY} connections in the accept queue at the end of the last request get 503`,
    (wire) => wire.get('/'),
  ),
  queuedWithTheLast(
    'half-closed-with-the-last-answer',
    `the same when their clients have ended their side after the request`,
    (wire) => {
      wire.get('/').socket.end();
    },
  ),
];

/** New connections sit in the accept queue when the last request in flight ends: the server must not leave over them. */
function queuedWithTheLast(name: string, ideal: string, ask: (wire: Wire) => void): Scenario {
  return instant(name, ideal, async (subject) => {
    const held = await subject.hold();
    await subject.stopping();
    subject.freeze();
    const upload = held.finish();
    const queued = Array.from({ length: MANY }, () => subject.begin());
    for (const wire of queued) ask(wire);
    await Promise.all(queued.map((wire) => wire.connected()));
    await new Promise((resolve) => setTimeout(resolve, 50));
    subject.thaw();
    const outcomes = await Promise.all(queued.map((wire) => wire.answer()));
    return saw(
      outcomes.every(isRefusal) && (await upload).status === 200,
      `${sayAll(outcomes)}; upload: ${say(await upload)}`,
    );
  });
}
