import type { ServerResponse } from 'node:http';
import type { Exchange } from './exchange.ts';
import { hasValidHost } from './host.ts';
import { sendError } from './response.ts';
import type { Match, Router } from './router.ts';

/** Finds the handler of an exchange and runs it; what has none gets the answer that HTTP has for the case. */
export function dispatch(router: Router, exchange: Exchange, response: ServerResponse): void {
  const { headers, httpVersionMinor } = exchange.request;
  const { expect } = headers;
  const modern = httpVersionMinor === 1;
  const match = router.match(exchange.method, exchange.url);
  if (!hasValidHost(exchange.request)) {
    refuse(router, exchange, response, 400, 'A request must have one Host header, with a valid value.');
  } else if (match.kind !== 'route') {
    miss(router, exchange, response, match);
  } else if (modern && expect !== undefined && expect.toLowerCase() !== '100-continue') {
    // RFC 9110 section 10.1.1
    refuse(router, exchange, response, 417, 'The only expectation that can be met is 100-continue.');
  } else {
    if (modern && expect !== undefined) response.writeContinue();
    exchange.run(match, response);
  }
}

type Miss = Exclude<Match, { kind: 'route' }>;

function miss(router: Router, exchange: Exchange, response: ServerResponse, { kind, allow }: Miss): void {
  if (allow !== undefined) response.setHeader('Allow', allow);
  if (kind === 'options') exchange.run(router.unrouted, response, () => response.writeHead(204).end());
  else if (kind === 'not allowed') refuse(router, exchange, response, 405, `This path answers ${allow}.`);
  else if (kind === 'not found') refuse(router, exchange, response, 404, 'Nothing answers at this path.');
  else refuse(router, exchange, response, 400, 'The path of the request is malformed.');
}

function refuse(
  router: Router,
  exchange: Exchange,
  response: ServerResponse,
  status: number,
  message: string,
): void {
  exchange.run(router.unrouted, response, () => sendError(response, status, message));
}
