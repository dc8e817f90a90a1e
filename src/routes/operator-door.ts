import { createServer, type Server } from 'node:http';
import { dispatch } from '../http/dispatch.ts';
import { Exchange, type Surroundings } from '../http/exchange.ts';
import type { Router } from '../http/router.ts';

/** Whoever asks here sends a few lines; nobody needs longer. */
const REQUEST_TIMEOUT_MS = 10_000;

/**
 * The operator's door: the same router and the same exchanges as the service's, without a gate. It answers in every
 * state, and nothing on it counts as in flight: an operator who watches the drain does not hold it up.
 */
export function createOperatorDoor(router: Router, around: Surroundings): Server {
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS });
  server.on('request', (request, response) => {
    const exchange = new Exchange(
      request,
      response,
      request.socket.remoteAddress ?? 'unknown',
      () => undefined,
      around,
    );
    response.on('close', () => exchange.end());
    dispatch(router, exchange, response);
  });
  return server;
}
