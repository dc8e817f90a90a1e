import type { Server } from 'node:net';
import { afterReading } from '../platform/deadline.ts';
import { stopAccepting } from '../platform/listen.ts';

/**
 * How long it must be quiet. With 3 ms, of 60 clients that came back at once one was reset in each tenth stop on Node 24.
 */
const QUIET_MS = 12;
/**
 * How often we look at most. Clients that open 500 connections a second, 60 at a time, wait for us after 120 ms. When we
 * did not wait for that, one of them was reset in 2 of 48 stops.
 */
const MOST_ROUNDS = 25;

/**
 * Accepts what the kernel has queued, then closes the listening socket: a connection that still sits in the queue when
 * that happens is reset. Call it while answers are held back: clients that wait for one open no connection, so the
 * queue runs empty.
 * @param arrivals grows with each connection and each request
 */
export async function closeAcceptQueue(server: Server, arrivals: () => number): Promise<void> {
  for (let round = 0; server.listening && round < MOST_ROUNDS; round += 1) {
    const before = arrivals();
    await afterReading(QUIET_MS);
    if (arrivals() === before) break;
  }
  stopAccepting(server);
  await afterReading(0);
}
