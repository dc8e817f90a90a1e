import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Exchange } from './exchange.ts';

/** How long a connection whose last answer is sent may still deliver the body that nobody read. */
const LINGER_MS = 2_000;

/** Writes a refusal; `last` says whether the connection ends with it. */
type Refuse = (response: ServerResponse, last: boolean) => void;

/** One open socket, and what is on it. */
export class Connection {
  readonly socket: Socket;
  /** The client's address: asked for now, because a closed socket no longer knows it. */
  readonly client: string;
  /** Monotonic milliseconds. */
  readonly openedMs = performance.now();
  /** Admitted and not closed, the oldest first. More than one only when requests are pipelined. */
  readonly exchanges: Exchange[] = [];
  /** Refused, and not answered yet: behind an exchange, or while the gate holds its answers. */
  readonly refused: ServerResponse[] = [];
  /** Refused for overload and answered, but not sent: in front of them may be an exchange. */
  #passedOver = 0;
  #requests = 0;
  #closing = false;
  #latest: IncomingMessage | undefined;
  #latestResponse: ServerResponse | undefined;
  #conclusion: (() => void) | undefined;
  /** `socket.bytesRead` when the latest request came, or was over: more than that, and a next one has begun. */
  #bytesBefore = 0;

  constructor(socket: Socket) {
    this.socket = socket;
    this.client = socket.remoteAddress ?? 'unknown';
  }

  /** Whether nothing has ever come on it. */
  get silent(): boolean {
    return this.socket.bytesRead === 0;
  }

  get idle(): boolean {
    return this.exchanges.length === 0 && this.refused.length === 0;
  }

  /** Whether nothing is on it, not even a part of a request, or what is left of an answer. */
  get isAtRest(): boolean {
    return this.idle && !this.#closing && !this.halfSent && this.socket.writableLength === 0;
  }

  /** Whether an answer has ended this connection: what comes behind it is not processed (RFC 9112 section 9.6). */
  get closing(): boolean {
    return (
      this.#closing || (this.exchanges.length > 0 && this.exchanges.some((exchange) => exchange.saidClose))
    );
  }

  /** Whether the client is still sending the body of its latest request. */
  get sending(): boolean {
    return this.#latest !== undefined && !this.#latest.complete;
  }

  /** The exchange whose body is still coming: undefined when it was refused, or answered already. */
  get unread(): Exchange | undefined {
    return this.sending ? this.exchanges.find(({ request }) => request === this.#latest) : undefined;
  }

  /** Whether nothing is read as a request any more, whatever the parser makes of it. */
  get concluded(): boolean {
    return this.#conclusion !== undefined;
  }

  /** Whether a request has begun to come in whose head is not complete. */
  get halfSent(): boolean {
    return this.idle && !this.#closing && !this.sending && this.socket.bytesRead > this.#bytesBefore;
  }

  /** Requests that ever came on it. */
  get requests(): number {
    return this.#requests;
  }

  arrived(request: IncomingMessage, response: ServerResponse | undefined): void {
    this.#requests += 1;
    this.#latest = request;
    this.#latestResponse = response;
    this.#noRequestYet();
  }

  begin(exchange: Exchange): void {
    this.exchanges.push(exchange);
  }

  /** @returns false when the exchange was over before. */
  end(exchange: Exchange): boolean {
    const index = this.exchanges.indexOf(exchange);
    if (index === -1) return false;
    // Without pipelining it is the only one, and `splice` would make an array of it.
    if (this.exchanges.length === 1) this.exchanges.pop();
    else this.exchanges.splice(index, 1);
    if (this.#latestResponse === exchange.response) this.#latestResponse = undefined;
    this.#noRequestYet();
    // What still comes of a body that nobody has read does not belong to a next request either.
    if (!exchange.request.complete) exchange.request.once('end', () => this.#noRequestYet());
    // An idle connection holds nothing of what was on it.
    else if (this.#latest === exchange.request) this.#latest = undefined;
    return true;
  }

  #noRequestYet(): void {
    this.#bytesBefore = this.socket.bytesRead;
  }

  /**
   * From here on nothing is read as a request: what came is none, or asks to leave HTTP. `step` answers it, in its
   * turn, unless an answer before it has ended the connection. Only the first counts.
   */
  conclude(step: () => void): void {
    if (this.#conclusion !== undefined) return;
    this.#conclusion = step;
    this.#afterLatest(() => this.closing || this.socket.destroyed || step());
  }

  /** The body of the latest request is broken. It has its answer, or will have it: there is no second one. */
  giveUp(): void {
    this.#afterLatest(() => this.close());
  }

  #afterLatest(step: () => void): void {
    const response = this.#latestResponse;
    if (response === undefined || response.closed) step();
    else response.once('close', step);
  }

  /** Notes an answer that does not end the connection, so that no answer in front of it may either. */
  passOver(response: ServerResponse): void {
    this.#passedOver += 1;
    response.once('close', () => {
      this.#passedOver -= 1;
    });
  }

  /** Sees to it that, of the answers still to come, the last one and only that says `Connection: close`. */
  markLast(): void {
    if (this.exchanges.length === 0) return;
    const last = this.exchanges.length - 1;
    const behind = this.refused.length + this.#passedOver;
    for (const [index, exchange] of this.exchanges.entries()) {
      exchange.markLast(index === last && behind === 0 && this.#conclusion === undefined);
    }
  }

  /** Answers what was refused here, in its order, unless exchanges before it are still to be answered. */
  answerRefused(refuse: Refuse): void {
    if (this.exchanges.length > 0) return;
    const waiting = this.refused.splice(0);
    for (const [index, response] of waiting.entries()) {
      refuse(response, index === waiting.length - 1 && this.#conclusion === undefined);
    }
  }

  /**
   * Ends the connection after what is written. A client that is still sending would be answered with a reset, and
   * the reset would overtake the answer: so its bytes are read and dropped until it is done, for a bounded time.
   */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    const { socket } = this;
    const request = this.#latest;
    socket.end();
    if (socket.destroyed) return;
    const timer = setTimeout(() => socket.destroy(), LINGER_MS);
    socket.once('close', () => clearTimeout(timer));
    if (request !== undefined && !request.complete)
      request.once('end', () => destroyAfterFlush(socket)).resume();
    else if (this.#conclusion === undefined) destroyAfterFlush(socket);
    // Where nothing is read as a request any more, only the client's own end tells that it is done.
    if (this.#conclusion !== undefined) socket.resume();
  }
}

function destroyAfterFlush(socket: Socket): void {
  if (socket.writableFinished) socket.destroy();
  else socket.once('finish', () => socket.destroy());
}

/** Which sockets are open, and what is on each. */
export class Connections {
  readonly #open = new Map<Socket, Connection>();
  readonly #waiting: (() => void)[] = [];
  #arrivals = 0;

  /** Connections and requests that ever came: two equal readings mean that nothing came between them. */
  get arrivals(): number {
    return this.#arrivals;
  }

  get size(): number {
    return this.#open.size;
  }

  get idle(): number {
    let idle = 0;
    for (const connection of this.#open.values()) if (connection.idle) idle += 1;
    return idle;
  }

  /** Resolves when no socket is open. */
  emptied(): Promise<void> {
    return this.size === 0 ? Promise.resolve() : new Promise((resolve) => this.#waiting.push(resolve));
  }

  [Symbol.iterator](): IterableIterator<Connection> {
    return this.#open.values();
  }

  /** Every exchange in flight. */
  *exchanges(): Generator<Exchange> {
    for (const connection of this.#open.values()) yield* connection.exchanges;
  }

  /** Takes a new socket on. `ended` hears of every exchange that its end has ended. */
  open(socket: Socket, ended: (connection: Connection, exchange: Exchange) => void): void {
    const connection = new Connection(socket);
    this.#arrivals += 1;
    this.#open.set(socket, connection);
    // node:http calls this after an answer that ends the connection.
    socket.destroySoon = () => connection.close();
    socket.on('close', () => {
      this.#open.delete(socket);
      if (this.size === 0) for (const resolve of this.#waiting.splice(0)) resolve();
      // Responses queued behind the current one get no `close` event of their own from Node.
      for (const exchange of [...connection.exchanges]) ended(connection, exchange);
    });
  }

  /** The connection a request came on, with the response it is to be answered by; an upgrade has none. */
  arrived(request: IncomingMessage, response?: ServerResponse): Connection | undefined {
    this.#arrivals += 1;
    const connection = this.#open.get(request.socket);
    connection?.arrived(request, response);
    return connection;
  }

  of(socket: Socket): Connection | undefined {
    return this.#open.get(socket);
  }
}
