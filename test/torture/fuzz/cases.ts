import type { Random } from './random.ts';

/** What one connection of the fuzzer does. */
export interface Case {
  /** Written one after the other, each in a packet of its own. One byte a character. */
  readonly pieces: readonly string[];
  /** `patient`: waits for the answers, then ends its side. `hasty`: ends it at once. `rude`: closes the whole connection. */
  readonly ending: 'patient' | 'hasty' | 'rude';
  /** Made of nothing but whole, well-formed requests: each has to be answered. */
  readonly plain: boolean;
}

const METHODS = ['GET', 'GET', 'GET', 'HEAD', 'POST', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE'];
const WORDS = [
  '',
  'a',
  'later',
  'read',
  'stream',
  'orders/17',
  'health',
  '%61',
  'x?y=later',
  '%e2%82%ac?read',
];
const STRANGE_TARGETS = [
  '*',
  'http://other.example/absolute',
  'http://other.example?query',
  'HTTP://other.example:1/x',
  'test:443',
  '/%',
  '/%zz',
  '/%00',
  '/%ff%fe',
  '//double//slash',
  '/../../etc/passwd',
  '/a/./b/../c',
  '/#fragment',
  '/a\\b',
  '\xff\xfe',
  '/admin/emergency-shutdown',
  `/${'long/'.repeat(500)}`,
];
const FIELDS = [
  'Accept: */*',
  'Connection: keep-alive',
  'Connection: close',
  'Connection: x, y',
  'Connection: Upgrade\r\nUpgrade: chat',
  'Upgrade: h2c',
  'Expect: 100-continue',
  'Expect: something else',
  'TE: trailers',
  'Cookie: a=b; c=d',
  'X-Empty:',
  'X-Tab:\ta\t',
  'X-High: \xe9\xff',
  'Range: bytes=0-1',
  'Authorization: Bearer wrong-but-long-enough',
  'Host: second',
  'Host: fuzz',
  'host: user@fuzz',
  `X-Long: ${'v'.repeat(3000)}`,
];
const HOSTS = [
  '',
  'fuzz:80',
  '[::1]:1',
  'user@fuzz',
  'fuzz/path',
  'a, b',
  'fuzz:x',
  'fuzz:99999',
  'fuzz:1:2',
  'f%zz',
];
/** What two readers may take differently. The request behind must not be taken for one where the length is in doubt. */
const FRAMINGS = [
  'Content-Length: 5\r\nTransfer-Encoding: chunked',
  'Transfer-Encoding: chunked\r\nContent-Length: 5',
  'Content-Length: 5\r\nContent-Length: 6',
  'Content-Length: 5\r\nContent-Length: 5',
  'Content-Length: 5, 5',
  'Content-Length: +5',
  'Content-Length: -5',
  'Content-Length: 0x5',
  'Content-Length: 5 ',
  'Content-Length: 005',
  'Content-Length : 5',
  ' Content-Length: 5',
  'Content-Length: 99999999999999999999',
  'Content-Length: ',
  'Content_Length: 5',
  'Content-Length\0: 5',
  'Transfer-Encoding: chunked, chunked',
  'Transfer-Encoding: identity',
  'Transfer-Encoding: chunked, identity',
  'Transfer-Encoding: identity, chunked',
  'Transfer-Encoding: gzip',
  'Transfer-Encoding: gzip, chunked',
  'Transfer-Encoding: xchunked',
  'Transfer-Encoding: Chunked',
  'Transfer-Encoding:\tchunked',
  'Transfer-Encoding : chunked',
  'Transfer-Encoding:\r\n chunked',
  'Transfer-Encoding: \x0bchunked',
  'Transfer-Encoding: "chunked"',
  'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity',
  'Transfer-Encoding: identity\r\nTransfer-Encoding: chunked',
  'X: y\rTransfer-Encoding: chunked',
  'X: y\nTransfer-Encoding: chunked',
  'X: y\r\n\tTransfer-Encoding: chunked',
];
const BODIES = [
  'hello',
  '0\r\n\r\n',
  '5\r\nhello\r\n0\r\n\r\n',
  '5;ext=1\r\nhello\r\n0\r\nTrailer: t\r\n\r\n',
  '5;ext="\r\n"\r\nhello\r\n0\r\n\r\n',
  '5\nhello\n0\n\n',
  '5 \r\nhello\r\n0\r\n\r\n',
  '0x5\r\nhello\r\n0\r\n\r\n',
  '-5\r\nhello\r\n0\r\n\r\n',
  '005\r\nhello\r\n000\r\n\r\n',
  'FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n',
  '5\r\nhelloX\r\n0\r\n\r\n',
  '0\r\n',
];
const BYTES = [
  '\0',
  '\r',
  '\n',
  '\r\n',
  ' ',
  '\t',
  ':',
  ';',
  ',',
  '/',
  '%',
  '?',
  '\x7f',
  '\x80',
  '\xff',
  '"',
];

/** A case that `random` decides, from well-formed to nothing like HTTP. */
export function makeCase(random: Random): Case {
  const kind = random.below(10);
  if (kind < 3) return cut(pipeline(random), random, true);
  if (kind < 6) return cut(doubtful(random), random, false);
  if (kind < 9) return cut(mutated(pipeline(random), random), random, false);
  return cut(oversized(random), random, false);
}

/** One to five well-formed requests, one behind the other. */
function pipeline(random: Random): string {
  const count = 1 + (random.chance(0.5) ? 0 : random.below(5));
  return Array.from({ length: count }, () => request(random)).join('');
}

function request(random: Random): string {
  const method = random.pick(METHODS);
  const target = `/${random.pick(WORDS)}`;
  const sized = method === 'POST' || method === 'PUT' || method === 'PATCH';
  const body = 'b'.repeat(random.below(random.chance(0.1) ? 100_000 : 50));
  const head = `${method} ${target} HTTP/1.1\r\nHost: fuzz\r\n`;
  if (!sized) return `${head}\r\n`;
  if (random.chance(0.5)) return `${head}Content-Length: ${body.length}\r\n\r\n${body}`;
  const half = body.length >> 1;
  return `${head}Transfer-Encoding: chunked\r\n\r\n${chunk(body.slice(0, half))}${chunk(body.slice(half))}0\r\n\r\n`;
}

function chunk(text: string): string {
  return text === '' ? '' : `${text.length.toString(16)}\r\n${text}\r\n`;
}

/** Requests of which some are strange, with something behind that would be dispatched if it were taken for a request. */
function doubtful(random: Random): string {
  const method = random.pick([...METHODS, 'CONNECT', 'PRI', 'get', 'M-SEARCH', 'UNKNOWN', 'G\0T', '']);
  const target = random.chance(0.4) ? random.pick(STRANGE_TARGETS) : `/${random.pick(WORDS)}`;
  const version = random.chance(0.8)
    ? 'HTTP/1.1'
    : random.pick(['HTTP/1.0', 'HTTP/2.0', 'HTTP/0.9', 'http/1.1', 'HTTP/1.', '']);
  const fields = random.chance(0.9) ? [`Host: ${random.chance(0.8) ? 'fuzz' : random.pick(HOSTS)}`] : [];
  for (let left = random.below(4); left > 0; left -= 1) fields.push(random.pick(FIELDS));
  const framed = random.chance(0.6);
  if (framed) fields.push(random.pick(FRAMINGS));
  const body = framed ? random.pick(BODIES) : '';
  const prefix = random.chance(0.2) ? request(random) : '';
  const smuggled = random.chance(0.8) ? `GET /smuggled HTTP/1.1\r\nHost: fuzz\r\n\r\n` : '';
  const space = random.chance(0.95) ? ' ' : random.pick(['  ', '\t', '\0']);
  const behind = random.chance(0.3) ? request(random) : '';
  return `${prefix}${method}${space}${target}${space}${version}\r\n${fields.join('\r\n')}\r\n\r\n${body}${smuggled}${behind}`;
}

function mutated(text: string, random: Random): string {
  let result = text;
  for (let left = 1 + random.below(4); left > 0; left -= 1) {
    const at = random.below(result.length + 1);
    const [before, after] = [result.slice(0, at), result.slice(at)];
    switch (random.below(8)) {
      case 0:
        result = before + random.pick(BYTES) + after;
        break;
      case 1:
        result = before + after.slice(1 + random.below(8));
        break;
      case 2:
        result = before + String.fromCharCode(random.below(256)) + after.slice(1);
        break;
      case 3:
        result = result.replace('\r\n', random.pick(['\n', '\r', '\r\r\n', '\n\r']));
        break;
      case 4:
        result = result.replace(': ', random.pick([':', ' : ', ':\r\n ', ':\0', ';']));
        break;
      case 5:
        result = before + result.slice(random.below(result.length + 1));
        break;
      case 6:
        result = result.slice(0, at);
        break;
      default:
        result = result.replace(/\r\n\r\n/, `\r\n${random.pick(FRAMINGS)}\r\n\r\n`);
    }
  }
  return result;
}

/** More than a head may hold, and more of it than anybody wants. */
function oversized(random: Random): string {
  const much = random.pick([17_000, 100_000, 300_000]);
  const start = 'GET / HTTP/1.1\r\nHost: fuzz\r\n';
  switch (random.below(5)) {
    case 0:
      return `GET /${'a'.repeat(much)} HTTP/1.1\r\nHost: fuzz\r\n\r\n`;
    case 1:
      return `${start}X: ${'v'.repeat(much)}\r\n\r\n`;
    case 2:
      return `${start}${'X: y\r\n'.repeat(much / 6)}\r\n`;
    case 3:
      return `POST / HTTP/1.1\r\nHost: fuzz\r\nTransfer-Encoding: chunked\r\n\r\n1;${'e'.repeat(much)}\r\na\r\n0\r\n\r\n`;
    default:
      return '\r\n'.repeat(much / 2);
  }
}

/** Cuts the bytes into packets, at any byte, and decides how the connection ends. */
function cut(text: string, random: Random, whole: boolean): Case {
  const early = random.chance(0.15);
  const bytes = early ? text.slice(0, random.below(text.length + 1)) : text;
  const points = Array.from({ length: random.chance(0.5) ? 0 : random.below(6) }, () =>
    random.below(bytes.length + 1),
  );
  points.sort((a, b) => a - b);
  const pieces: string[] = [];
  let from = 0;
  for (const point of [...points, bytes.length]) {
    if (point > from) pieces.push(bytes.slice(from, point));
    from = Math.max(from, point);
  }
  const ending = early || random.chance(0.2) ? random.pick(['hasty', 'rude'] as const) : 'patient';
  return { pieces, ending, plain: whole && !early && ending === 'patient' };
}
