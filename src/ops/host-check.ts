import { isIP } from 'node:net';
import { hostname } from 'node:os';
import type { Config } from '../config/settings.ts';
import { sendError } from '../server/response.ts';
import type { Handler } from '../server/router.ts';
import { escapeControl } from './escape-control.ts';

/** Lets a handler answer only those who ask by a name of the ops server. */
export type HostCheck = (handler: Handler) => Handler;

/**
 * Against DNS rebinding: the page of an attacker can give its own name the address of this server and then read what
 * the browser takes for its own. The browser says by which name it came, and that one is not on this list. An address
 * cannot be bound to another one, so every address is. Who sends no Host at all is no browser.
 */
export function hostCheck({
  opsHost,
  opsAllowedHosts = '',
}: Pick<Config, 'opsHost' | 'opsAllowedHosts'>): HostCheck {
  const own = hostname().toLowerCase();
  const names = new Set([
    'localhost',
    opsHost.toLowerCase(),
    own,
    own.split('.')[0],
    ...opsAllowedHosts.split(','),
  ]);
  names.delete('');
  return (handler) => (request, response, context) => {
    const { host } = request.headers;
    if (host === undefined || isAllowed(nameIn(host))) return handler(request, response, context);
    const told = `The ops server does not answer to the name ${JSON.stringify(escapeControl(host))}.`;
    sendError(response, 421, `${told} Ask by its address, or add the name to OPS_ALLOWED_HOSTS.`);
  };

  function isAllowed(name: string): boolean {
    return isIP(name) !== 0 || names.has(name) || name.endsWith('.localhost');
  }
}

/** Without the port, the brackets of an IPv6 address and the dot that ends a whole name. */
function nameIn(host: string): string {
  const [, address, name] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(host.trim().toLowerCase()) ?? [];
  return address ?? name?.replace(/\.$/, '') ?? '';
}
