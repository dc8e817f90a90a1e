import type { IncomingMessage } from 'node:http';
import { isIPv6 } from 'node:net';

/** RFC 3986 section 3.2: a host, without user information, and perhaps a port, which may be empty. */
const HOST = /^(?:\[([\da-fA-F:.]+)\]|(?:[\w.~!$&'()*+,;=-]|%[\da-fA-F]{2})+)(?::(\d{0,5}))?$/;
const HIGHEST_PORT = 65_535;

/** Most clients name the same host, so the last good one is compared before anything else. */
let lastValid = '';

/**
 * Whether a request names its host as RFC 9112 section 3.2 demands: in exactly one field, with a valid value. Only
 * HTTP/1.0 may leave it out.
 */
export function hasValidHost({ headers, httpVersion, rawHeaders }: IncomingMessage): boolean {
  const { host } = headers;
  if (host === undefined) return httpVersion === '1.0';
  if (host !== lastValid) {
    if (!isValid(host)) return false;
    lastValid = host;
  }
  // node:http keeps the first of several.
  let hosts = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) if (isHost(rawHeaders[at] as string)) hosts += 1;
  return hosts === 1;
}

function isValid(host: string): boolean {
  const match = HOST.exec(host);
  if (match === null) return false;
  const [, address, port] = match;
  return (address === undefined || isIPv6(address)) && Number(port ?? 0) <= HIGHEST_PORT;
}

function isHost(name: string): boolean {
  return name.length === 4 && (name === 'Host' || name.toLowerCase() === 'host');
}
