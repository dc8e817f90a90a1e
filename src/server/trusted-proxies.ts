import type { IncomingMessage } from 'node:http';
import { BlockList, isIP } from 'node:net';
import { isRequestId } from './request-id.ts';

/** Answers are remembered for so many addresses: a look into the list takes longer than all else here. */
const MOST_REMEMBERED = 1_000;
/** RFC 7239 section 4: one parameter of an element. A value with a comma in it is not understood, which is safe. */
const PARAMETER = /^\s*([!#$%&'*+.^_`|~\w-]+)=(?:"([^"\\]*)"|([!#$%&'*+.^_`|~\w-]+))\s*$/;
/** An address, perhaps in brackets, perhaps with a port. */
const NODE = /^(?:\[([\da-fA-F:.]+)\]|([\d.]+))(?::\d{1,5})?$|^([\da-fA-F:.]+)$/;

/** Whose word about a client is taken: an address, and a request's id. By default nobody's. */
export class TrustedProxies {
  #list: BlockList | undefined;
  #remembered = new Map<string, boolean>();

  /** @param cidrs addresses and networks separated by commas; undefined for none */
  constructor(cidrs: string | undefined) {
    this.configure(cidrs);
  }

  configure(cidrs: string | undefined): void {
    this.#remembered.clear();
    this.#list = cidrs === undefined ? undefined : new BlockList();
    for (const cidr of cidrs?.split(',') ?? []) {
      const [address = '', prefix] = cidr.split('/');
      const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
      if (prefix === undefined) this.#list?.addAddress(address, family);
      else this.#list?.addSubnet(address, Number(prefix), family);
    }
  }

  /**
   * The client's address: the nearest one that is no trusted proxy. What stands left of that was written by anybody.
   * @param peer the address at the other end of the connection
   */
  clientOf(peer: string, { headers }: IncomingMessage): string {
    if (!this.trusts(peer)) return peer;
    const { forwarded, 'x-forwarded-for': forwardedFor } = headers;
    const addresses = [
      ...(forwarded === undefined ? [] : [this.#nearest(peer, forwarded.split(',').map(forIn))]),
      ...(typeof forwardedFor === 'string' ? [this.#nearest(peer, forwardedFor.split(',').map(nodeIn))] : []),
    ];
    const [client = peer, other = client] = addresses;
    // A proxy that writes one of the two passes the other on as the client has sent it.
    return client === other ? client : peer;
  }

  /** The id that a trusted proxy has given the request. */
  idOf(peer: string, { headers }: IncomingMessage): string | undefined {
    if (!this.trusts(peer)) return undefined;
    const id = headers['x-request-id'];
    return typeof id === 'string' && isRequestId(id) ? id : undefined;
  }

  #nearest(peer: string, hops: readonly (string | undefined)[]): string {
    let nearest = peer;
    for (const hop of hops.toReversed()) {
      // Whoever has hidden an address is all that is known of it.
      if (hop === undefined || !this.#trusts(nearest)) break;
      nearest = hop;
    }
    return nearest;
  }

  /** Whether this address is one of them. */
  trusts(address: string): boolean {
    return this.#list !== undefined && this.#trusts(address);
  }

  #trusts(address: string): boolean {
    const known = this.#remembered.get(address);
    if (known !== undefined) return known;
    const version = isIP(address);
    const trusted = version !== 0 && this.#list?.check(address, version === 6 ? 'ipv6' : 'ipv4') === true;
    if (this.#remembered.size >= MOST_REMEMBERED) this.#remembered.clear();
    this.#remembered.set(address, trusted);
    return trusted;
  }
}

/** The address in one element of `Forwarded`; undefined when it names none, or is malformed in any part. */
function forIn(element: string): string | undefined {
  let node: string | undefined;
  for (const parameter of element.split(';')) {
    const [, name, quoted, token] = PARAMETER.exec(parameter) ?? [];
    if (name === undefined) return undefined;
    if (name.toLowerCase() === 'for') node = quoted ?? token;
  }
  return node === undefined ? undefined : nodeIn(node);
}

function nodeIn(text: string): string | undefined {
  const [, bracketed, plain, bare] = NODE.exec(text.trim()) ?? [];
  const address = bracketed ?? plain ?? bare ?? '';
  return isIP(address) === 0 ? undefined : address;
}
