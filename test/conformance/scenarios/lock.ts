import type { Outcome, RawClient } from '../../support/raw-client.ts';
import { closes, isRefusal, type Observed, type Scenario, saw, say, sayAll, sayEnd } from '../scenario.ts';
import type { Subject } from '../subject.ts';

const LARGE = 10 * 1024 * 1024;
const REFUSED = 'a whole 503 with Connection: close';

/** A scenario in which the stop waits for an upload while something else is asked for. */
function lock(name: string, ideal: string, play: (subject: Subject) => Promise<Observed>): Scenario {
  return {
    name,
    promise: 'lock',
    ideal,
    async play(subject) {
      await subject.hold();
      return play(subject);
    },
  };
}

/** The plainest form: what is asked for on a new connection while the stop is under way. */
function onNew(name: string, ask: (wire: RawClient) => Promise<Outcome>, ideal = REFUSED): Scenario {
  return lock(name, ideal, async (subject) => {
    await subject.stopping();
    return judge(await ask(await subject.open()));
  });
}

/** What is asked for on a connection that was used before the signal. */
function onIdle(name: string, ask: (wire: RawClient) => Promise<Outcome>, ideal = REFUSED): Scenario {
  return lock(name, ideal, async (subject) => {
    const [wire] = (await subject.idle(1)) as [RawClient];
    await subject.stopping();
    return judge(await ask(wire));
  });
}

function judge(outcome: Outcome): Observed {
  return saw(isRefusal(outcome), say(outcome));
}

function withBody(wire: RawClient): RawClient {
  return wire.request('POST', '/upload', { 'Content-Length': String(LARGE) }).write(Buffer.alloc(LARGE));
}

/** The 503 has to come whole although nobody reads the body, and no reset may come after it either. */
async function refusedWithoutReset(wire: RawClient): Promise<Observed> {
  const outcome = await wire.answer();
  const end = await wire.endedWithin(5_000);
  return saw(isRefusal(outcome) && end === 'fin', `${say(outcome)}; then ${sayEnd(end)}`);
}

export const lockScenarios: readonly Scenario[] = [
  onNew('new-connection', (wire) => wire.get('/').answer()),
  onIdle('idle-connection', (wire) => wire.get('/').answer()),
  onNew(
    'unknown-path',
    (wire) => wire.get('/no-such-path').answer(),
    `${REFUSED}, not 404: nothing is dispatched`,
  ),
  onNew('post-with-body', (wire) =>
    wire.request('POST', '/upload', { 'Content-Length': '5' }).write('hello').answer(),
  ),
  onNew('options', (wire) => wire.request('OPTIONS', '*').answer()),
  onNew(
    'expect-continue',
    (wire) =>
      wire
        .request('POST', '/upload', { 'Content-Length': '5', Expect: '100-continue' })
        .answer()
        .then(noInterim),
    `${REFUSED}, and no 100 before it`,
  ),
  onIdle(
    'expect-continue-idle',
    (wire) =>
      wire
        .request('POST', '/upload', { 'Content-Length': '5', Expect: '100-continue' })
        .answer()
        .then(noInterim),
    `${REFUSED}, and no 100 before it`,
  ),
  onNew('upgrade', (wire) =>
    wire.request('GET', '/', { Connection: 'Upgrade', Upgrade: 'websocket' }).answer(),
  ),
  onIdle('upgrade-idle', (wire) =>
    wire.request('GET', '/', { Connection: 'Upgrade', Upgrade: 'websocket' }).answer(),
  ),
  onNew('connect', (wire) =>
    wire.write('CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n').answer(),
  ),
  onNew('byte-by-byte', async (wire) => {
    for (const byte of 'GET / HTTP/1.1\r\nHost: a\r\n\r\n') {
      wire.write(byte);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    return wire.answer();
  }),
  lock('http-1.0', 'a whole 503, and the end of the connection', async (subject) => {
    await subject.stopping();
    const wire = (await subject.open()).write('GET / HTTP/1.0\r\n\r\n');
    const outcome = await wire.answer();
    const end = await wire.endedWithin(5_000);
    return saw(outcome.status === 503 && end === 'fin', `${say(outcome)}; then ${sayEnd(end)}`);
  }),
  lock('http-1.0-idle', 'a whole 503, and the end of the connection', async (subject) => {
    const wire = await subject.open();
    const text = 'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n';
    const first = await wire.write(text).answer();
    if (first.status === 200 && (closes(first) || first.headers.connection === undefined))
      return saw(true, 'the server keeps no HTTP/1.0 alive');
    await subject.stopping();
    const outcome = await wire.write(text).answer();
    const end = await wire.endedWithin(5_000);
    return saw(outcome.status === 503 && end === 'fin', `${say(outcome)}; then ${sayEnd(end)}`);
  }),
  lock('head', `${REFUSED} and without a body`, async (subject) => {
    await subject.stopping();
    const wire = (await subject.open()).request('HEAD', '/');
    const outcome = await wire.answer({ head: true });
    await wire.endedWithin(5_000);
    const body = wire.pending === '' ? 'no body' : `a body of ${wire.pending.length} bytes`;
    return saw(isRefusal(outcome) && wire.pending === '', `${say(outcome)}; ${body}`);
  }),
  onNew(
    'half-closed-client',
    (wire) => {
      wire.get('/').socket.end();
      return wire.answer();
    },
    `${REFUSED}, also to a client that ends its side after the request`,
  ),
  lock('silent-connection-asks', REFUSED, async (subject) => {
    const wire = await subject.open();
    await subject.settled();
    await subject.stopping();
    return judge(await wire.get('/').answer());
  }),
  lock('half-sent-head', REFUSED, async (subject) => {
    const wire = (await subject.open()).write('GET / HTTP/1.1\r\nHost: 127.0');
    await subject.settled();
    await subject.stopping();
    return judge(await wire.write('.0.1\r\n\r\n').answer());
  }),
  lock('half-sent-head-on-idle', REFUSED, async (subject) => {
    const [wire] = (await subject.idle(1)) as [RawClient];
    wire.write('GET / HT');
    await subject.settled();
    await subject.stopping();
    return judge(await wire.write('TP/1.1\r\nHost: 127.0.0.1\r\n\r\n').answer());
  }),
  lock(
    'pipelined-on-idle',
    'an answer to each of three requests: 503, the last with Connection: close',
    async (subject) => {
      const [wire] = (await subject.idle(1)) as [RawClient];
      await subject.stopping();
      wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(3));
      const outcomes = [await wire.answer(), await wire.answer(), await wire.answer()];
      const [, , last] = outcomes as [Outcome, Outcome, Outcome];
      return saw(
        outcomes.every(({ status }) => status === 503) && isRefusal(last),
        outcomes.map(say).join(' | '),
      );
    },
  ),
  lock('large-body', 'a whole 503, then the end of the connection without a reset', async (subject) => {
    await subject.stopping();
    return refusedWithoutReset(withBody(await subject.open()));
  }),
  lock(
    'large-body-on-idle',
    'a whole 503, then the end of the connection without a reset',
    async (subject) => {
      const [wire] = (await subject.idle(1)) as [RawClient];
      await subject.stopping();
      return refusedWithoutReset(withBody(wire));
    },
  ),
  lock('chunked-body', 'a whole 503, then the end of the connection without a reset', async (subject) => {
    await subject.stopping();
    const wire = (await subject.open()).request('POST', '/upload', { 'Transfer-Encoding': 'chunked' });
    wire
      .write(`${LARGE.toString(16)}\r\n`)
      .write(Buffer.alloc(LARGE))
      .write('\r\n0\r\n\r\n');
    return refusedWithoutReset(wire);
  }),
  onNew('chunked-body-without-end', (wire) =>
    wire.request('POST', '/upload', { 'Transfer-Encoding': 'chunked' }).write('5\r\nhello\r\n').answer(),
  ),
  lock('retry-after', 'the 503 says when to come back', async (subject) => {
    await subject.stopping();
    const outcome = await (await subject.open()).get('/').answer();
    const after = outcome.status === undefined ? undefined : outcome.headers['retry-after'];
    const words = after === undefined ? 'no Retry-After' : `Retry-After: ${after}`;
    return saw(outcome.status === 503 && after !== undefined, `${say(outcome)}; ${words}`);
  }),
  lock(
    'refusal-ends-connection',
    'after the 503 the server ends the connection, and not with a reset',
    async (subject) => {
      await subject.stopping();
      const wire = (await subject.open()).get('/');
      const outcome = await wire.answer();
      const end = outcome.status === undefined ? undefined : await wire.endedWithin(3_000);
      const words = outcome.status === undefined ? '' : `; then ${sayEnd(end)}`;
      return saw(isRefusal(outcome) && end === 'fin', say(outcome) + words);
    },
  ),
  lock('many-at-once', 'each of 100 new connections gets a whole 503', async (subject) => {
    await subject.stopping();
    const outcomes = await Promise.all((await subject.openMany(100)).map((wire) => wire.get('/').answer()));
    return saw(outcomes.every(isRefusal), sayAll(outcomes));
  }),
  lock('late-in-the-drain', 'a second after the signal the lock still answers: 503', async (subject) => {
    await subject.stopping();
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    return judge(await (await subject.open()).get('/').answer());
  }),
];

/** A 100 before the answer is as wrong as another answer: the client would send its body. */
function noInterim(outcome: Outcome): Outcome {
  return outcome.status !== undefined && outcome.interim.length > 0
    ? { status: undefined, how: 'fin', lost: say(outcome), sent: true }
    : outcome;
}
