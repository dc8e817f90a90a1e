import type { Server } from 'node:net';

/** Servers that are ours. What looks for the servers of an application leaves them alone. */
export const OWN_SERVERS = new WeakSet<Server>();
