import type { Server } from 'node:http';
import { afterReading } from '../../platform/deadline.ts';
import {
  handedSocket,
  listen,
  listenOnHanded,
  SERVICE_ADDRESS,
  stopAccepting,
  urlOf,
} from '../../platform/listen.ts';
import type { Connections } from '../../server/connections.ts';
import type { Gate } from '../../server/gate.ts';

/** Holding the door: how long it must be quiet, and how often we look at most. */
const HOLD_MS = 3;
const HOLD_ROUNDS = 25;

/** Where a service's connections come from: a listening socket of its own, or a supervisor that hands them over. */
export interface Listener {
  /** For people. */
  readonly where: string;
  readonly accepting: boolean;
  /** From now on connections come. @throws StartError when they cannot */
  open(server: Server): Promise<void>;
  /** No more come. Those that are open stay as they are. */
  close(): void;
  /** Keeps the gate's answers back while what is on its way comes in, closes, and lets them go. */
  lastCall(gate: Gate, connections: Connections): Promise<void>;
}

/** A listening socket of the process's own: bound here, or opened by systemd for it. */
export class OwnListener implements Listener {
  readonly #host: string;
  readonly #port: number;
  #server: Server | undefined;

  constructor(host: string, port: number) {
    this.#host = host;
    this.#port = port;
  }

  get where(): string {
    return this.#server === undefined ? 'no address' : urlOf(this.#server);
  }

  get accepting(): boolean {
    return this.#server?.listening === true;
  }

  async open(server: Server): Promise<void> {
    this.#server = server;
    const fd = handedSocket();
    if (fd === undefined) await listen(server, this.#host, this.#port, SERVICE_ADDRESS);
    else await listenOnHanded(server, fd);
  }

  close(): void {
    if (this.#server !== undefined) stopAccepting(this.#server);
  }

  /**
   * A connection that sits in the accept queue when the listening socket closes is reset. So, before that, answers
   * are held back for a few milliseconds: clients that wait for one open no connection, the queue runs empty, and
   * what came is answered right after the socket is closed.
   */
  async lastCall(gate: Gate, connections: Connections): Promise<void> {
    if (!this.accepting) return;
    gate.hold();
    for (let round = 0; round < HOLD_ROUNDS; round += 1) {
      const before = connections.arrivals;
      await afterReading(HOLD_MS);
      if (connections.arrivals === before) break;
    }
    this.close();
    await afterReading(0);
    gate.release();
  }
}
