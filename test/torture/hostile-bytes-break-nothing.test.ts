import t from 'tap';
import { fuzz } from './fuzz/fuzz.ts';
import { judge, type Played } from './fuzz/play.ts';
import { readStrictly } from './fuzz/reference.ts';
import '../support/service-process.ts';

/** The same bytes in every run: a test says whether something has changed. `npm run fuzz` is what looks for more. */
const SEED = Number(process.env.FUZZ_SEED ?? 1);
const CASES = 150;

t.test(
  'in every state: nothing smuggled, every answer whole, a clean stop, an audit log that verifies',
  async (t) => {
    const { failures, dispatches } = await fuzz({ seed: SEED, forMs: 0, round: CASES });
    for (const failure of failures)
      t.fail(`seed ${SEED}: ${failure.wrong}: ${JSON.stringify(failure).slice(0, 2_000)}`);
    t.equal(failures.length, 0);
    t.ok(dispatches > 0, 'the gate was open in some of them');
  },
);

t.test(
  'in front of a program: nothing reaches it that the gate has not admitted, and nothing is read in two ways',
  async (t) => {
    const { failures, dispatches } = await fuzz({ seed: SEED, forMs: 0, round: CASES, guards: true });
    for (const failure of failures)
      t.fail(`seed ${SEED}: ${failure.wrong}: ${JSON.stringify(failure).slice(0, 2_000)}`);
    t.equal(failures.length, 0);
    t.ok(dispatches > 0, 'the gate was open in some of them');
  },
);

t.test('the fuzzer finds what it is there to find', async (t) => {
  const one = { pieces: ['GET /a HTTP/1.1\r\nHost: x\r\n\r\n'], ending: 'patient', plain: true } as const;
  const answer = (serial: number): string =>
    `HTTP/1.1 200 OK\r\nX-Dispatch: ${serial}\r\nContent-Length: 2\r\n\r\nok`;
  const seen = (received: string): Played => ({ localPort: 1, received, end: 'fin', leftFirst: true });
  const dispatch = { serial: 1, port: 1, method: 'GET', url: '/a' };
  const found = (...args: Parameters<typeof judge>): string => judge(...args).join('; ');

  t.equal(found(one, seen(answer(1)), [dispatch], 'admitted'), '');
  t.match(found(one, seen(answer(1) + answer(1)), [dispatch], 'admitted'), '2 answers for 1 requests');
  t.match(
    found(one, seen(answer(1)), [dispatch, { ...dispatch, url: '/b' }], 'admitted'),
    'smuggled: GET /b',
  );
  const twoHosts = { ...one, pieces: ['GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n'] };
  t.match(found(twoHosts, seen(answer(1)), [dispatch], 'admitted'), 'smuggled: GET /a');
  t.match(found(one, seen(answer(1)), [dispatch], 'refused'), 'behind a closed gate');
  t.match(found(one, seen(answer(1).slice(0, -1)), [dispatch], 'admitted'), 'no whole answer');
  t.match(found(one, seen(''), [dispatch], 'admitted'), '0 answers');
  t.match(found(one, { ...seen(''), end: 'hangs' }, [], 'admitted'), 'stays open');
});

t.test('the strict reader takes nothing for a request that is in doubt', async (t) => {
  const head = 'POST / HTTP/1.1\r\nHost: x\r\n';
  for (const framing of [
    'Content-Length: 5\r\nTransfer-Encoding: chunked',
    'Content-Length: 5\r\nContent-Length: 6',
    'Transfer-Encoding: identity',
    'Transfer-Encoding: chunked, chunked',
    'X: y\r\n folded: z',
    'X: y\nTransfer-Encoding: chunked',
    'Content-Length : 5',
  ]) {
    t.strictSame(readStrictly(`${head}${framing}\r\n\r\nhello`), { requests: [], end: 'malformed' }, framing);
  }
  for (const fields of [
    '',
    'Host: a\r\nHost: a\r\n',
    'Host: a@b\r\n',
    'Host: a:99999\r\n',
    'Host: a, b\r\n',
  ]) {
    t.match(
      readStrictly(`GET /a HTTP/1.1\r\n${fields}\r\n`),
      { requests: [{ target: '/a', rejected: true }], end: 'nothing left' },
      fields,
    );
  }
  t.match(readStrictly(`${head}Content-Length: 5\r\n\r\nhello${head}\r\n`), {
    requests: [{ method: 'POST', target: '/' }, {}],
    end: 'nothing left',
  });
  t.match(readStrictly(`${head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n`), { end: 'half sent' });
});
