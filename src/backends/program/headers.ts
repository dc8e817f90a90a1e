import type { IncomingMessage } from 'node:http';
import { isIPv6 } from 'node:net';
import type { Exchange } from '../../server/exchange.ts';
import { originOf } from '../../server/router.ts';
import type { TrustedProxies } from '../../server/trusted-proxies.ts';

/** RFC 9110 section 7.6.1: these are about one connection. Framing is made anew on each side. */
const HOP = new Set([
  ...['connection', 'keep-alive', 'proxy-connection', 'te', 'transfer-encoding', 'upgrade', 'content-length'],
  ...['expect', 'proxy-authorization', 'proxy-authenticate', 'proxy-authentication-info'],
]);
/** The gate says who asks, in its own words. */
const TOLD = /^(?:forwarded|x-forwarded-(?:for|proto|host)|x-request-id)$/;
/** More that a proxy may say of a client: believed from a trusted one alone. */
const CLAIMED = /^(?:x-forwarded-.+|x-real-ip|x-client-ip|true-client-ip)$/;
/** Fields that a trailer must not carry (RFC 9110 section 6.5.1): framing, routing, authentication, and how to read. */
const NO_TRAILER =
  /^(?:host|trailer|content-.*|authorization|cookie|set-cookie|cache-control|expires|date|location|range|max-forwards|pragma|age|vary|www-authenticate|if-.*)$/;
const MOST_REMEMBERED = 1_000;

/** What was found out about names, which come again and again as they were. */
function remembering<T>(find: (name: string) => T): (name: string) => T {
  const known = new Map<string, T>();
  return (name) => {
    const found = known.get(name);
    if (found !== undefined || known.has(name)) return found as T;
    if (known.size >= MOST_REMEMBERED) known.clear();
    const result = find(name);
    known.set(name, result);
    return result;
  };
}

/** The name of a field that stays on its connection, in lower case; undefined for any other. */
const hopOf = remembering((name) => {
  const lower = name.toLowerCase();
  return HOP.has(lower) ? lower : undefined;
});

/** What of a field the program may have: `told` by the gate in its place, `claimed` by the client, or its own text. */
type Trust = 'told' | 'claimed' | 'text';

const trustOf = remembering((name): Trust => {
  // To WSGI and CGI an underscore is a hyphen: with it, a name may stand for any that is more than text here.
  const hyphened = name.toLowerCase().replaceAll('_', '-');
  const isDisguised = name.includes('_') && (HOP.has(hyphened) || hyphened === 'host');
  if (isDisguised || TOLD.test(hyphened)) return 'told';
  return CLAIMED.test(hyphened) ? 'claimed' : 'text';
});

/** The names that a Connection field lists, in lower case; most list none. */
function namedIn(connection: string | undefined): ReadonlySet<string> | undefined {
  if (connection === undefined || /^(?:keep-alive|close|upgrade|keep-alive, *upgrade)$/i.test(connection))
    return undefined;
  return new Set(connection.toLowerCase().split(/\s*,\s*/));
}

/** Whether a body follows the head. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

/** Without a body these have no length either (RFC 9110 section 8.6). */
const BODILESS = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE', 'CONNECT']);

/** The head for the program: names and values in turns. @param isUpgrade whether it asks to leave HTTP */
export function headForProgram(exchange: Exchange, proxies: TrustedProxies, isUpgrade = false): string[] {
  const { request, method } = exchange;
  const { headers, rawHeaders } = request;
  const peer = request.socket.remoteAddress ?? exchange.client;
  const named = namedIn(headers.connection);
  const isTrusted = proxies.trusts(peer);
  const host = authorityOf(exchange.url) ?? headers.host ?? '';
  const head = ['Host', host];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] as string;
    if (hopOf(name) !== undefined || isHost(name) || named?.has(name.toLowerCase())) continue;
    const trust = trustOf(name);
    if (trust === 'told' || (trust === 'claimed' && !isTrusted)) continue;
    head.push(name, rawHeaders[at + 1] as string);
  }
  if (isUpgrade && method !== 'CONNECT') {
    head.push('Connection', 'Upgrade', 'Upgrade', headers.upgrade ?? '');
  } else if (method !== 'CONNECT') {
    if (/(?:^|,)\s*trailers\s*(?:$|,|;)/i.test(String(headers.te ?? '')))
      head.push('Connection', 'keep-alive, TE', 'TE', 'trailers');
    if (headers['transfer-encoding'] !== undefined) head.push('Transfer-Encoding', 'chunked');
    else if (headers['content-length'] !== undefined)
      head.push('Content-Length', String(Number(headers['content-length'])));
    else if (!BODILESS.has(method)) head.push('Content-Length', '0');
    if (expectsContinue(request)) head.push('Expect', '100-continue');
  }
  tellWhoAsks(head, exchange, peer, host, isTrusted ? headers : {});
  return head;
}

function isHost(name: string): boolean {
  return name.length === 4 && name.toLowerCase() === 'host';
}

export function expectsContinue({ headers, httpVersion }: IncomingMessage): boolean {
  return headers.expect?.toLowerCase() === '100-continue' && httpVersion === '1.1';
}

/** The authority of a target that is a whole URL: it goes before the Host field (RFC 9112 section 3.2.2). */
function authorityOf(target: string): string | undefined {
  if (target.startsWith('/')) return undefined;
  return /^[a-z][a-z\d+.-]*:\/\/(?:[^/?@]*@)?([^/?]+)/i.exec(target)?.[1];
}

/** The target for the program, which is an origin server: a path, or `*`. */
export function targetFor(target: string): string {
  return target.startsWith('/') ? target : originOf(target);
}

/** @param before what a trusted proxy in front of us has said */
function tellWhoAsks(
  head: string[],
  { id }: Exchange,
  peer: string,
  host: string,
  before: IncomingMessage['headers'],
): void {
  const text = (name: string): string | undefined => {
    const value = before[name];
    return typeof value === 'string' && value !== '' ? value : undefined;
  };
  const add = (list: string | undefined, one: string): string =>
    list === undefined ? one : `${list}, ${one}`;
  const proto = text('x-forwarded-proto') ?? 'http';
  const node = isIPv6(peer) ? `"[${peer}]"` : peer;
  head.push(
    ...['X-Forwarded-For', add(text('x-forwarded-for'), peer), 'X-Forwarded-Proto', proto],
    ...['X-Forwarded-Host', text('x-forwarded-host') ?? host],
    ...[
      'Forwarded',
      add(text('forwarded'), `for=${node};host="${host.replaceAll(/["\\]/g, '')}";proto=${proto}`),
    ],
    ...['X-Request-Id', id],
  );
}

/** The head of the program's answer, for the client: names and values in turns; and how long its body is, or NaN. */
export function headForClient(raw: readonly string[]): { head: string[]; length: number } {
  const head: string[] = [];
  let [connection, length, isCoded]: [string | undefined, number, boolean] = [undefined, Number.NaN, false];
  for (let at = 0; at < raw.length; at += 2) {
    const [name, value] = [raw[at] as string, raw[at + 1] as string];
    const hop = hopOf(name);
    if (hop === undefined) head.push(name, value);
    else if (hop === 'content-length') length = Number(value);
    else if (hop === 'transfer-encoding') isCoded = true;
    else if (hop === 'connection') connection = value;
  }
  const named = namedIn(connection);
  for (let at = 0; named !== undefined && at < head.length; )
    if (named.has((head[at] as string).toLowerCase())) head.splice(at, 2);
    else at += 2;
  // Of both, the coding counts (RFC 9112 section 6.3).
  if (isCoded) length = Number.NaN;
  if (!Number.isNaN(length)) head.push('Content-Length', String(length));
  return { head, length };
}

/** What may be passed on of a trailer, as pairs. */
export function trailersOf(raw: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at] as string;
    if (hopOf(name) !== undefined || trustOf(name) !== 'text' || NO_TRAILER.test(name.toLowerCase()))
      continue;
    pairs.push([name, raw[at + 1] as string]);
  }
  return pairs;
}
