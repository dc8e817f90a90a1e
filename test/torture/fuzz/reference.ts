/** A request as a strict reader of RFC 9112 finds it. */
export interface Read {
  readonly method: string;
  readonly target: string;
  /** To be answered with an error, and not to be dispatched: it does not say what it is for, or not clearly. */
  readonly rejected?: true;
}

export interface Reading {
  /** Those that are whole, and at most one whose body is not. */
  readonly requests: readonly Read[];
  /** Why the reading ended: nothing was left, more would have to come, or what follows is no request. */
  readonly end: 'nothing left' | 'half sent' | 'malformed' | 'left HTTP';
}

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const HEAD_END = '\r\n\r\n';

/**
 * Reads the bytes of a connection as slowly and strictly as RFC 9112 allows. Whatever a server dispatches that is not
 * in this list, in this order, was smuggled: it took something for a request that a strict neighbour does not.
 */
export function readStrictly(bytes: string): Reading {
  const requests: Read[] = [];
  let at = 0;
  for (;;) {
    // Section 2.2: empty lines before a request are to be ignored, and a single LF may end one.
    while (bytes[at] === '\n' || bytes.startsWith('\r\n', at)) at += bytes[at] === '\n' ? 1 : 2;
    if (at === bytes.length) return { requests, end: 'nothing left' };
    const headEnd = bytes.indexOf(HEAD_END, at);
    if (headEnd === -1) return { requests, end: 'half sent' };
    const head = headOf(bytes.slice(at, headEnd));
    if (head === undefined) return { requests, end: 'malformed' };
    const { method, target, fields, hosts, version } = head;
    const length = bodyOf(fields, version);
    if (length === undefined) return { requests, end: 'malformed' };
    // Where it ends is beyond doubt, so that the next one can be read; but it may not be dispatched itself.
    if (isForOneHost(hosts, version) && !/[#\\]/.test(target)) requests.push({ method, target });
    else requests.push({ method, target, rejected: true });
    at = headEnd + HEAD_END.length;
    if (method === 'CONNECT' || /\bupgrade\b/i.test(fields.get('connection') ?? ''))
      return { requests, end: 'left HTTP' };
    const end = length === 'chunked' ? chunksEnd(bytes, at) : at + length;
    if (end === 'malformed') return { requests, end };
    if (end === 'half sent' || end > bytes.length) return { requests, end: 'half sent' };
    at = end;
  }
}

interface Head extends Read {
  readonly version: string;
  readonly fields: ReadonlyMap<string, string>;
  /** The value of each Host line. */
  readonly hosts: readonly string[];
}

function headOf(text: string): Head | undefined {
  const [first = '', ...lines] = text.split('\r\n');
  // Section 3 leaves it open whether words are parted by one space or by more.
  const [method = '', target = '', version = '', ...more] = first.split(/ +/);
  if (!TOKEN.test(method) || !/^[\x21-\x7e]+$/.test(target) || more.length > 0) return undefined;
  // Section 3.2: a path, a whole URL, the authority that only CONNECT has, or the asterisk.
  if (method !== 'CONNECT' && !/^(?:\/|\*$|[a-z][a-z0-9+.-]*:\/\/)/i.test(target)) return undefined;
  if (!/^HTTP\/1\.[01]$/.test(version)) return undefined;
  const fields = new Map<string, string>();
  const hosts: string[] = [];
  for (const line of lines) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).toLowerCase();
    const value = line.slice(colon + 1).replaceAll(/^[ \t]+|[ \t]+$/g, '');
    if (colon === -1 || !TOKEN.test(name) || !/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) return undefined;
    if (name === 'host') hosts.push(value);
    const before = fields.get(name);
    fields.set(name, before === undefined ? value : `${before}, ${value}`);
  }
  return { method, target, version, fields, hosts };
}

/** Section 3.2: one Host line with a host and perhaps a port. HTTP/1.0 may leave it out. */
function isForOneHost(hosts: readonly string[], version: string): boolean {
  const [host, ...more] = hosts;
  if (host === undefined) return version === 'HTTP/1.0';
  const match = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::([0-9]*))?$/.exec(host);
  return more.length === 0 && match !== null && Number(match[1] ?? 0) <= 65_535;
}

/** Section 6.3. Undefined where the length is in doubt. */
function bodyOf(fields: ReadonlyMap<string, string>, version: string): number | 'chunked' | undefined {
  const length = fields.get('content-length');
  const coding = fields.get('transfer-encoding');
  if (coding !== undefined) {
    if (length !== undefined || version === 'HTTP/1.0' || coding.toLowerCase() !== 'chunked')
      return undefined;
    return 'chunked';
  }
  if (length === undefined) return 0;
  return /^(?:0|[1-9]\d{0,14})$/.test(length) ? Number(length) : undefined;
}

function chunksEnd(bytes: string, start: number): number | 'malformed' | 'half sent' {
  for (let at = start; ; ) {
    const lineEnd = bytes.indexOf('\r\n', at);
    if (lineEnd === -1) return 'half sent';
    const size = /^([0-9a-fA-F]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?$/.exec(
      bytes.slice(at, lineEnd),
    )?.[1];
    if (size === undefined) return 'malformed';
    const length = Number.parseInt(size, 16);
    at = lineEnd + 2;
    if (length === 0) {
      // The trailers, as lines of their own, and the empty line.
      const end = bytes.startsWith('\r\n', at) ? at : bytes.indexOf(HEAD_END, at);
      if (end === -1) return 'half sent';
      if (end === at) return at + 2;
      return headOf(`GET / HTTP/1.1\r\n${bytes.slice(at, end)}`) === undefined
        ? 'malformed'
        : end + HEAD_END.length;
    }
    if (bytes.length < at + length + 2) return 'half sent';
    if (!bytes.startsWith('\r\n', at + length)) return 'malformed';
    at += length + 2;
  }
}
