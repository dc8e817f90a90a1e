import type { Connections } from '../../server/connections.ts';
import type { Exchange } from '../../server/exchange.ts';

/** A request whose body stops coming for so long is cut while the service stops, so that it does not cost the grace. */
const STALL_MS = 5_000;
const CHECK_MS = 500;

/** Calls `cut` for each request whose handler waits for a body that has not moved for a while. @returns ends the watch */
export function watchStalledBodies(connections: Connections, cut: (exchange: Exchange) => void): () => void {
  const seen = new Map<Exchange, { bytes: number; sinceMs: number }>();
  const timer = setInterval(() => {
    const now = performance.now();
    for (const exchange of connections.exchanges()) {
      const bytes = exchange.request.socket.bytesRead;
      const last = seen.get(exchange);
      if (exchange.phase !== 'receiving') seen.delete(exchange);
      else if (last === undefined || last.bytes !== bytes) seen.set(exchange, { bytes, sinceMs: now });
      else if (now - last.sinceMs >= STALL_MS) cut(exchange);
    }
  }, CHECK_MS);
  return () => clearInterval(timer);
}
