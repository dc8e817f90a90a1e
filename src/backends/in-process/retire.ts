import { within } from '../../platform/deadline.ts';
import type { Connections } from '../../server/connections.ts';
import type { Listener } from './listener.ts';

/**
 * Empties a service without refusing anything: no more connections come, every answer from here on says
 * `Connection: close`, and an idle connection is left to its client or to the keep-alive time-out. Resolves when
 * none is left, at the latest after `lingerMs`.
 */
export async function retire(listener: Listener, connections: Connections, lingerMs: number): Promise<void> {
  listener.close();
  for (const connection of connections) connection.announceClose();
  await within(lingerMs, connections.emptied());
}
