import { isIP } from 'node:net';
import { hostname } from 'node:os';
import type { Config } from '../config/settings.ts';
import { escapeControl } from '../platform/escape-control.ts';
import { sendError } from '../server/response.ts';
import type { Handler } from '../server/router.ts';

/**
 * Makes a handler answer only requests by a name of the ops server, against DNS rebinding: an attacker's page can point
 * its own name at this server and read what the browser takes for its own origin. The browser sends that name as Host.
 * Every address is allowed, because no name can be pointed at it. Browsers always send a Host, so its absence is allowed.
 */
export function hostCheck({ opsHost, opsAllowedHosts = '' }: Config): (handler: Handler) => Handler {
  const own = hostname().toLowerCase();
  const [short = own] = own.split('.');
  const names = new Set(['localhost', opsHost.toLowerCase(), own, short, ...opsAllowedHosts.split(',')]);
  names.delete('');
  return (handler) => (request, response, context) => {
    const { host } = request.headers;
    if (host === undefined || isAllowed(nameIn(host))) return handler(request, response, context);
    const why = `The ops server does not answer to the name ${JSON.stringify(escapeControl(host))}.`;
    sendError(response, 421, `${why} Ask by its address, or add the name to OPS_ALLOWED_HOSTS.`);
  };

  function isAllowed(name: string): boolean {
    return isIP(name) !== 0 || names.has(name) || name.endsWith('.localhost');
  }
}

/** Without the port, the brackets of an IPv6 address and the final dot of a full name. */
function nameIn(host: string): string {
  const [, address, name] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(host.trim().toLowerCase()) ?? [];
  return address ?? name?.replace(/\.$/, '') ?? '';
}
