import { once } from 'node:events';
import { connect } from 'node:net';
import t from 'tap';
import { type App, sendJson } from '../../src/index.ts';
import { running } from '../support/embedded-service.ts';

/** What the application was given, in order. */
let dispatched: string[] = [];

const app: App = {
  routes(router) {
    router.get('/', (_request, response) => {
      dispatched.push('GET /');
      sendJson(response, 200, {});
    });
    router.post('/', async (request, response) => {
      dispatched.push('POST /');
      let bytes = 0;
      for await (const chunk of request) bytes += chunk.length;
      sendJson(response, 200, { bytes });
    });
    router.upgrade('/chat', (_request, socket) => {
      dispatched.push('UPGRADE /chat');
      socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n');
    });
  },
};

/** What a case has to bring: the status of each answer, and whether the service then ends the connection. */
interface Expected {
  readonly statuses: readonly number[];
  readonly closes: boolean;
  readonly dispatches?: readonly string[];
}

const HOST = 'Host: test\r\n';
const GET = `GET / HTTP/1.1\r\n${HOST}`;
const POST = `POST / HTTP/1.1\r\n${HOST}`;
const CHUNKED = `${POST}Transfer-Encoding: chunked\r\n\r\n`;
const NEXT = `${GET}\r\n`;

/** Nothing of it reaches the application, and nothing behind it is read. */
const broken = (status: number): Expected => ({ statuses: [status], closes: true });
/** Its head is good, so the application has it; its body is broken. */
const cutShort = (status: number): Expected => ({ ...broken(status), dispatches: ['POST /'] });
/** A request like another, with an answer that says what is wrong with it: the next one is served. */
const wrong = (status: number): Expected => ({
  statuses: [status, 200],
  closes: false,
  dispatches: ['GET /'],
});
const served = (...dispatches: string[]): Expected => ({
  statuses: dispatches.map(() => 200).concat(200),
  closes: false,
  dispatches: [...dispatches, 'GET /'],
});

/** Each is followed by a request that is beyond doubt. */
const CASES: Readonly<Record<string, Readonly<Record<string, readonly [string, Expected]>>>> = {
  'the request line (RFC 9112 sections 2.2, 2.3 and 3)': {
    'empty lines before it are skipped': [`\r\n\r\n${GET}\r\n`, served('GET /')],
    'no target': [`GET HTTP/1.1\r\n${HOST}\r\n`, broken(400)],
    'no version: HTTP/0.9': ['GET /\r\n\r\n', broken(505)],
    'HTTP/1': [`GET / HTTP/1\r\n${HOST}\r\n`, broken(400)],
    'HTTP/1.2': [`GET / HTTP/1.2\r\n${HOST}\r\n`, broken(505)],
    'HTTP/2.0': [`GET / HTTP/2.0\r\n${HOST}\r\n`, broken(505)],
    'HTTP/3.0': [`GET / HTTP/3.0\r\n${HOST}\r\n`, broken(505)],
    'HTTP/01.1': [`GET / HTTP/01.1\r\n${HOST}\r\n`, broken(400)],
    'HTTP/ 1.1': [`GET / HTTP/ 1.1\r\n${HOST}\r\n`, broken(400)],
    'http/1.1': [`GET / http/1.1\r\n${HOST}\r\n`, broken(400)],
    HTTPS: [`GET / HTTPS/1.1\r\n${HOST}\r\n`, broken(400)],
    'a tab for a space': [`GET\t/ HTTP/1.1\r\n${HOST}\r\n`, broken(400)],
    'a space in the target': [`GET /a b HTTP/1.1\r\n${HOST}\r\n`, broken(400)],
    'a bare LF behind it': [`GET / HTTP/1.1\n${HOST}\r\n`, broken(400)],
    'a bare CR behind it': [`GET / HTTP/1.1\r${HOST}\r\n`, broken(400)],
    'a space before the first field': [`GET / HTTP/1.1\r\n ${HOST}\r\n`, broken(400)],
    'an unknown method': [`BREW / HTTP/1.1\r\n${HOST}\r\n`, broken(400)],
    'a method in lower case': [`get / HTTP/1.1\r\n${HOST}\r\n`, broken(400)],
    'bytes that are no text': ['\x00\x01\xff\xfe\x80\r\n\r\n', broken(400)],
    'a TLS handshake': ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', broken(400)],
    'the preface of HTTP/2': ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', broken(400)],
  },
  'the target (RFC 9112 section 3.2)': {
    'a fragment': [`GET /#a HTTP/1.1\r\n${HOST}\r\n`, wrong(400)],
    'a fragment behind a query': [`GET /?a#b HTTP/1.1\r\n${HOST}\r\n`, wrong(400)],
    'a backslash': [`GET /a\\b HTTP/1.1\r\n${HOST}\r\n`, wrong(400)],
    'a backslash in the query': [`GET /?a\\b HTTP/1.1\r\n${HOST}\r\n`, wrong(400)],
    'a byte beyond ASCII': [`GET /\xe9 HTTP/1.1\r\n${HOST}\r\n`, broken(400)],
    'an overlong encoding of /': [`GET /a%c0%af HTTP/1.1\r\n${HOST}\r\n`, wrong(400)],
    'a NUL': [`GET /\0 HTTP/1.1\r\n${HOST}\r\n`, broken(400)],
    'a bad escape': [`GET /%zz HTTP/1.1\r\n${HOST}\r\n`, wrong(400)],
    'a whole URL, whatever Host says': [`GET http://other.example/ HTTP/1.1\r\n${HOST}\r\n`, served('GET /')],
    'the asterisk for OPTIONS': [
      `OPTIONS * HTTP/1.1\r\n${HOST}\r\n`,
      { statuses: [204, 200], closes: false, dispatches: ['GET /'] },
    ],
    'the asterisk for GET': [`GET * HTTP/1.1\r\n${HOST}\r\n`, wrong(400)],
    'an authority for GET': [`GET test:80 HTTP/1.1\r\n${HOST}\r\n`, broken(400)],
    'an authority for CONNECT': [`CONNECT test:80 HTTP/1.1\r\n${HOST}\r\n`, broken(400)],
    'a path for CONNECT': [`CONNECT / HTTP/1.1\r\n${HOST}\r\n`, broken(405)],
    'one that is too long': [`GET /${'a'.repeat(20_000)} HTTP/1.1\r\n${HOST}\r\n`, broken(414)],
  },
  'Host (RFC 9112 section 3.2)': {
    none: ['GET / HTTP/1.1\r\n\r\n', wrong(400)],
    'none, by HTTP/1.0': ['GET / HTTP/1.0\r\n\r\n', { statuses: [200], closes: true, dispatches: ['GET /'] }],
    two: [`${GET}Host: other\r\n\r\n`, wrong(400)],
    'the same twice': [`${GET}${HOST}\r\n`, wrong(400)],
    'two, by HTTP/1.0': [`GET / HTTP/1.0\r\n${HOST}${HOST}\r\n`, broken(400)],
    empty: ['GET / HTTP/1.1\r\nHost:\r\n\r\n', wrong(400)],
    'user@host': ['GET / HTTP/1.1\r\nHost: user@host\r\n\r\n', wrong(400)],
    'host/path': ['GET / HTTP/1.1\r\nHost: host/path\r\n\r\n', wrong(400)],
    'a, b': ['GET / HTTP/1.1\r\nHost: a, b\r\n\r\n', wrong(400)],
    'host:port:port': ['GET / HTTP/1.1\r\nHost: host:1:2\r\n\r\n', wrong(400)],
    'host:http': ['GET / HTTP/1.1\r\nHost: host:http\r\n\r\n', wrong(400)],
    'host:-1': ['GET / HTTP/1.1\r\nHost: host:-1\r\n\r\n', wrong(400)],
    'host:65536': ['GET / HTTP/1.1\r\nHost: host:65536\r\n\r\n', wrong(400)],
    'an address of IPv6 without brackets': ['GET / HTTP/1.1\r\nHost: ::1\r\n\r\n', wrong(400)],
    'a bad address of IPv6': ['GET / HTTP/1.1\r\nHost: [::1::2]\r\n\r\n', wrong(400)],
    'a bad escape': ['GET / HTTP/1.1\r\nHost: a%zz\r\n\r\n', wrong(400)],
    'host:65535': ['GET / HTTP/1.1\r\nHost: host:65535\r\n\r\n', served('GET /')],
    'an empty port': ['GET / HTTP/1.1\r\nHost: host:\r\n\r\n', served('GET /')],
    'an address of IPv6': ['GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n', served('GET /')],
    'an underscore and a final dot': ['GET / HTTP/1.1\r\nhost: a_b.example.\r\n\r\n', served('GET /')],
  },
  'fields (RFC 9112 section 5)': {
    'a space before the colon': [`${GET}X : y\r\n\r\n`, broken(400)],
    'a tab in the name': [`${GET}X\tY: z\r\n\r\n`, broken(400)],
    'an empty name': [`${GET}: y\r\n\r\n`, broken(400)],
    'brackets in the name': [`${GET}X[0]: y\r\n\r\n`, broken(400)],
    'a name beyond ASCII': [`${GET}X\xe9: y\r\n\r\n`, broken(400)],
    'no colon': [`${GET}X\r\n\r\n`, broken(400)],
    'a folded line': [`${GET}X: y\r\n z\r\n\r\n`, broken(400)],
    'a NUL in the value': [`${GET}X: a\0b\r\n\r\n`, broken(400)],
    'a control character in the value': [`${GET}X: a\x01b\r\n\r\n`, broken(400)],
    'a bare CR in the value': [`${GET}X: a\rb\r\n\r\n`, broken(400)],
    'a bare LF behind a value': [`${GET}X: a\n\r\n`, broken(400)],
    'an empty value': [`${GET}X:\r\n\r\n`, served('GET /')],
    'a value beyond ASCII': [`${GET}X: \xe9\r\n\r\n`, served('GET /')],
    'too many bytes': [`${GET}${'X: y\r\n'.repeat(4_000)}\r\n`, broken(431)],
    'a value that is too long': [`${GET}X: ${'y'.repeat(20_000)}\r\n\r\n`, broken(431)],
    'a name that is too long': [`${GET}${'X'.repeat(20_000)}: y\r\n\r\n`, broken(431)],
  },
  'Content-Length (RFC 9112 section 6.3)': {
    'as it should be': [`${POST}Content-Length: 5\r\n\r\nhello`, served('POST /')],
    'none: no body': [`${POST}\r\n`, served('POST /')],
    '0': [`${POST}Content-Length: 0\r\n\r\n`, served('POST /')],
    'spaces around it': [`${POST}Content-Length:  5 \r\n\r\nhello`, served('POST /')],
    'two that differ': [`${POST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello`, broken(400)],
    'two that are equal': [`${POST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`, broken(400)],
    '5, 5': [`${POST}Content-Length: 5, 5\r\n\r\nhello`, broken(400)],
    '5, 6': [`${POST}Content-Length: 5, 6\r\n\r\nhello`, broken(400)],
    '1 0': [`${POST}Content-Length: 1 0\r\n\r\nhello`, broken(400)],
    '+5': [`${POST}Content-Length: +5\r\n\r\nhello`, broken(400)],
    '-5': [`${POST}Content-Length: -5\r\n\r\nhello`, broken(400)],
    '-0': [`${POST}Content-Length: -0\r\n\r\nhello`, broken(400)],
    '0x5': [`${POST}Content-Length: 0x5\r\n\r\nhello`, broken(400)],
    '0o5': [`${POST}Content-Length: 0o5\r\n\r\nhello`, broken(400)],
    '1_0': [`${POST}Content-Length: 1_0\r\n\r\nhello`, broken(400)],
    '5.0': [`${POST}Content-Length: 5.0\r\n\r\nhello`, broken(400)],
    five: [`${POST}Content-Length: five\r\n\r\nhello`, broken(400)],
    empty: [`${POST}Content-Length:\r\n\r\n`, broken(400)],
    '005': [`${POST}Content-Length: 005\r\n\r\nhello`, broken(400)],
    '00': [`${POST}Content-Length: 00\r\n\r\n`, broken(400)],
    'more than fits': [`${POST}Content-Length: 99999999999999999999\r\n\r\n`, broken(400)],
    'a space before its colon': [`${POST}Content-Length : 5\r\n\r\nhello`, broken(400)],
  },
  'Transfer-Encoding (RFC 9112 sections 6.1 and 7)': {
    chunked: [`${CHUNKED}5\r\nhello\r\n0\r\n\r\n`, served('POST /')],
    'in other letters': [`${POST}Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n`, served('POST /')],
    'with a length': [`${POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, broken(400)],
    'and then a length': [
      `${POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n`,
      broken(400),
    ],
    'by HTTP/1.0': [`POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, broken(400)],
    identity: [`${POST}Transfer-Encoding: identity\r\n\r\n`, broken(400)],
    'chunked, chunked': [`${POST}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n`, broken(400)],
    'chunked, identity': [`${POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`, broken(400)],
    'gzip, chunked': [`${POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, broken(400)],
    gzip: [`${POST}Transfer-Encoding: gzip\r\n\r\n`, broken(400)],
    xchunked: [`${POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`, broken(400)],
    ', chunked': [`${POST}Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n`, broken(400)],
    empty: [`${POST}Transfer-Encoding:\r\n\r\n`, broken(400)],
    'in quotes': [`${POST}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n`, broken(400)],
    twice: [`${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, broken(400)],
    'a vertical tab before it': [`${POST}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n`, broken(400)],
    'a NUL behind it': [`${POST}Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n`, broken(400)],
    'a space before its colon': [`${POST}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`, broken(400)],
    folded: [`${POST}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n`, broken(400)],
  },
  'chunks (RFC 9112 section 7.1)': {
    'several, in capitals': [`${CHUNKED}A\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n`, served('POST /')],
    'an extension': [`${CHUNKED}5;a=b\r\nhello\r\n0\r\n\r\n`, served('POST /')],
    'a trailer': [`${CHUNKED}5\r\nhello\r\n0\r\nX: y\r\n\r\n`, served('POST /')],
    'an extension that is too long': [
      `${CHUNKED}5;${'a'.repeat(20_000)}\r\nhello\r\n0\r\n\r\n`,
      cutShort(400),
    ],
    '0x5': [`${CHUNKED}0x5\r\nhello\r\n0\r\n\r\n`, cutShort(400)],
    '-5': [`${CHUNKED}-5\r\nhello\r\n0\r\n\r\n`, cutShort(400)],
    '1_0': [`${CHUNKED}1_0\r\nhello\r\n0\r\n\r\n`, cutShort(400)],
    'a space before the size': [`${CHUNKED} 5\r\nhello\r\n0\r\n\r\n`, cutShort(400)],
    'no size': [`${CHUNKED}\r\nhello\r\n0\r\n\r\n`, cutShort(400)],
    'more than fits': [`${CHUNKED}FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n`, cutShort(400)],
    'no CRLF behind the data': [`${CHUNKED}5\r\nhello0\r\n\r\n`, cutShort(400)],
    'more data than the size': [`${CHUNKED}5\r\nhelloXX\r\n0\r\n\r\n`, cutShort(400)],
    'a bare LF behind the size': [`${CHUNKED}5\nhello\r\n0\r\n\r\n`, cutShort(400)],
    'a bare CR behind the size': [`${CHUNKED}5\rhello\r\n0\r\n\r\n`, cutShort(400)],
    'a NUL in an extension': [`${CHUNKED}5;a\0\r\nhello\r\n0\r\n\r\n`, cutShort(400)],
    'a bare semicolon': [`${CHUNKED}5;\r\nhello\r\n0\r\n\r\n`, cutShort(400)],
  },
  'Connection, Upgrade and Expect (RFC 9110 sections 7.6.1, 7.8 and 10.1.1)': {
    'Connection: close': [
      `${GET}Connection: close\r\n\r\n`,
      { statuses: [200], closes: true, dispatches: ['GET /'] },
    ],
    'HTTP/1.0 without keep-alive': [
      `GET / HTTP/1.0\r\n${HOST}\r\n`,
      { statuses: [200], closes: true, dispatches: ['GET /'] },
    ],
    'an upgrade that is taken': [
      `GET /chat HTTP/1.1\r\n${HOST}Connection: Upgrade\r\nUpgrade: chat\r\n\r\n`,
      { statuses: [101], closes: true, dispatches: ['UPGRADE /chat'] },
    ],
    'an upgrade over HTTP/1.0 is ignored': [
      `GET /chat HTTP/1.0\r\n${HOST}Connection: Upgrade\r\nUpgrade: chat\r\n\r\n`,
      broken(404),
    ],
    'an upgrade without a Host': [
      'GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n',
      broken(400),
    ],
    'an upgrade with two Hosts': [
      `GET /chat HTTP/1.1\r\n${HOST}Host: b\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n`,
      broken(400),
    ],
    'an upgrade with a bad Host': [
      'GET /chat HTTP/1.1\r\nHost: a@b\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n',
      broken(400),
    ],
    'Upgrade without Connection': [`GET /chat HTTP/1.1\r\n${HOST}Upgrade: chat\r\n\r\n`, wrong(404)],
    'an expectation that nobody knows': [`${GET}Expect: x\r\n\r\n`, wrong(417)],
  },
  'methods (RFC 9110 section 9)': {
    'HEAD is answered by GET, without a body': [`HEAD / HTTP/1.1\r\n${HOST}\r\n`, served('GET /')],
    OPTIONS: [
      `OPTIONS / HTTP/1.1\r\n${HOST}\r\n`,
      { statuses: [204, 200], closes: false, dispatches: ['GET /'] },
    ],
    TRACE: [`TRACE / HTTP/1.1\r\n${HOST}\r\n`, wrong(405)],
    'TRACE with a body': [`TRACE / HTTP/1.1\r\n${HOST}Content-Length: 5\r\n\r\nhello`, wrong(405)],
    DELETE: [`DELETE / HTTP/1.1\r\n${HOST}\r\n`, wrong(405)],
  },
};

interface Answered {
  readonly statuses: readonly number[];
  readonly heads: readonly string[];
  readonly closed: boolean;
}

/** Answers carry their length, but for those that may have no body. */
function read(text: string, isHead: boolean): { heads: string[]; rest: string } {
  const heads: string[] = [];
  let rest = text;
  for (;;) {
    const end = rest.indexOf('\r\n\r\n');
    if (end === -1) return { heads, rest };
    const head = rest.slice(0, end);
    const length =
      isHead && heads.length === 0 ? 0 : Number(/^content-length: (\d+)$/im.exec(head)?.[1] ?? 0);
    if (rest.length < end + 4 + length) return { heads, rest };
    heads.push(head);
    rest = rest.slice(end + 4 + length);
  }
}

/** Writes the bytes and one more request, and reads until the connection ends or the expected answers are there. */
async function ask(port: number, bytes: string, expected: Expected): Promise<Answered> {
  const socket = connect({ port, host: '127.0.0.1' });
  let received = '';
  let closed = false;
  const isHead = bytes.startsWith('HEAD');
  const done = new Promise<void>((resolve) => {
    socket.on('data', (data) => {
      received += data.toString('latin1');
      if (!expected.closes && read(received, isHead).heads.length >= expected.statuses.length) resolve();
    });
    socket.on('close', () => {
      closed = true;
      resolve();
    });
    socket.on('error', () => undefined);
  });
  socket.write(Buffer.from(bytes + NEXT, 'latin1'));
  await done;
  if (!closed) {
    socket.destroy();
    await once(socket, 'close');
    closed = false;
  }
  const { heads } = read(received, isHead);
  return { heads, statuses: heads.map((head) => Number(head.split(' ')[1])), closed };
}

for (const [about, cases] of Object.entries(CASES)) {
  t.test(about, async (t) => {
    const { port } = await running(t, { app });
    for (const [name, [bytes, expected]] of Object.entries(cases)) {
      dispatched = [];
      const { statuses, heads, closed } = await ask(port, bytes, expected);
      t.strictSame({ statuses, closed }, { statuses: expected.statuses, closed: expected.closes }, name);
      t.strictSame(dispatched, expected.dispatches ?? [], `${name}: what the application was given`);
      if (expected.closes && !heads.at(-1)?.startsWith('HTTP/1.1 101'))
        t.match(heads.at(-1), /^connection: close$/im, `${name}: says that it closes`);
      for (const head of heads) {
        if (!head.startsWith('HTTP/1.1 101'))
          t.match(head, /^date: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT$/im, `${name}: has a Date`);
      }
    }
  });
}
