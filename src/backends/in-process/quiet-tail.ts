import { afterReading } from '../../platform/deadline.ts';
import type { Connections } from '../../server/connections.ts';
import type { Exchange } from '../../server/exchange.ts';
import type { Gate } from '../../server/gate.ts';

/** Gone when nothing has come for so long, and in any case after the bound. */
const QUIET_MS = 10;
const TAIL_MS = 250;
/** So many connections are ended before the others are looked at again. */
const HUNG_UP_AT_ONCE = 1_000;

/**
 * Answers on until nothing has come for a while: no connection, no request, no byte of a body that is dropped. A client
 * that has connected since the lock is about to ask, however slow it is, so it is waited for as long as the tail may be.
 */
export async function quietTail(connections: Connections, lockedMs: number): Promise<void> {
  const endMs = performance.now() + TAIL_MS;
  let before = '';
  let now = arrivalsOn(connections);
  while ((now !== before || isAnyoneAboutToAsk(connections, lockedMs)) && performance.now() < endMs) {
    before = now;
    await afterReading(QUIET_MS);
    now = arrivalsOn(connections);
  }
}

function isAnyoneAboutToAsk(connections: Connections, lockedMs: number): boolean {
  for (const connection of connections) if (connection.openedMs >= lockedMs && connection.silent) return true;
  return false;
}

function arrivalsOn(connections: Connections): string {
  let dropped = 0;
  for (const connection of connections) if (connection.sending) dropped += connection.socket.bytesRead;
  return `${connections.arrivals} ${dropped}`;
}

/**
 * Ends what is left: half-closes it, lets the loop read once more, then destroys it. What comes on a connection between
 * the last look at it and its end is lost, so an idle one is destroyed at once, and after every few of them the loop
 * turns: what has come on the others meanwhile is refused.
 * @param cut ends an exchange that was let in even now, as happens without fail-safe
 */
export async function hangUp(
  gate: Gate,
  connections: Connections,
  cut: (exchange: Exchange) => void,
): Promise<void> {
  let ended = 0;
  for (const connection of connections) {
    if (connection.halfSent) gate.refuseRaw(connection);
    if (connection.isAtRest) connection.socket.destroy();
    else if (connection.current === undefined) connection.socket.end();
    ended += 1;
    if (ended % HUNG_UP_AT_ONCE === 0) await afterReading(0);
  }
  if (connections.size > 0) await afterReading(0);
  for (const exchange of [...connections.exchanges()]) cut(exchange);
  for (const { socket } of connections) socket.destroy();
}
