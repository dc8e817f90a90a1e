import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Exchange, Outcome } from './exchange.ts';
import { EXCHANGE } from './messages.ts';

/** After the last answer, how long the rest of a body is read and dropped. */
const LINGER_MS = 2_000;

/** Where a socket keeps its connection: a property is found faster than an entry of a map. */
const CONNECTION = Symbol('connection');

declare module 'node:net' {
  interface Socket {
    [CONNECTION]?: Connection;
  }
}

/** One open socket, and what is on it. Nothing here takes longer because many requests are pipelined. */
export class Connection {
  readonly socket: Socket;
  /** The address at the other end, read at once: a closed socket no longer knows it. */
  readonly peer: string;
  /** Monotonic milliseconds. */
  readonly openedMs = performance.now();
  /** Requests that were admitted or refused, ever. */
  #requests = 0;
  /** Of those, the ones whose response is not closed, and how many of them were refused. */
  #unanswered = 0;
  #refusedUnanswered = 0;
  /** In flight, as a queue linked by `exchange.next`. More than one only when requests are pipelined. */
  #first: Exchange | undefined;
  #last: Exchange | undefined;
  /** Refused and not answered yet: behind an exchange, or while the gate holds its answers. */
  #refused: ServerResponse[] = [];
  /** Read and not let to the gate yet, because too many before them are unanswered; the oldest at `#nextWaiting`. */
  #waiting: ServerResponse[] | undefined;
  #nextWaiting = 0;
  /** `overran`: more came than may be unanswered, so there may be more of it in the socket. `dropped`: unparsed. */
  #input: 'parsed' | 'overran' | 'dropped' = 'parsed';
  /** The exchange whose answer says `Connection: close`, because it is the last one to come. */
  #closesAfter: Exchange | undefined;
  #closing = false;
  #latest: IncomingMessage | undefined;
  #latestResponse: ServerResponse | undefined;
  #lastStep: (() => void) | undefined;
  /** `socket.bytesRead` when the latest request was over: more than that, and a next one has begun. */
  #bytesBefore = 0;

  constructor(socket: Socket) {
    this.socket = socket;
    this.peer = socket.remoteAddress ?? 'unknown';
  }

  static of(socket: Socket): Connection | undefined {
    return socket[CONNECTION];
  }

  /** Whether nothing has ever come on it. */
  get silent(): boolean {
    return this.socket.bytesRead === 0;
  }

  get idle(): boolean {
    return this.#first === undefined && this.#refused.length === 0 && this.#waiting === undefined;
  }

  /** The request in flight that is to be answered first. */
  get current(): Exchange | undefined {
    return this.#first;
  }

  /** Whether nothing is on it, not even a part of a request, or what is left of an answer. */
  get isAtRest(): boolean {
    return this.idle && !this.#closing && !this.halfSent && this.socket.writableLength === 0;
  }

  /** Whether an answer has ended this connection: what comes behind it is not processed (RFC 9112 section 9.6). */
  get closing(): boolean {
    return this.#closing || this.#closesAfter?.response?.headersSent === true;
  }

  /** Whether the client is still sending the body of its latest request. */
  get sending(): boolean {
    return this.#latest !== undefined && !this.#latest.complete;
  }

  /** The exchange whose body is still coming: undefined when it was refused, or answered already. */
  get receiving(): Exchange | undefined {
    return this.sending && this.#last?.request === this.#latest ? this.#last : undefined;
  }

  /** Whether bytes that still come are no longer read as requests, even if the parser finds some. */
  get readsNoMore(): boolean {
    return this.#lastStep !== undefined;
  }

  /** Whether a request has begun to come in whose head is not complete. */
  get halfSent(): boolean {
    return this.idle && !this.#closing && !this.sending && this.socket.bytesRead > this.#bytesBefore;
  }

  /** Requests in flight, the oldest first. */
  *exchanges(): Generator<Exchange> {
    for (let exchange = this.#first; exchange !== undefined; exchange = exchange.next) yield exchange;
  }

  /** Notes a request that has come, with the response it is to be answered by; an upgrade has none. */
  arrived(request: IncomingMessage, response: ServerResponse | undefined): void {
    this.#latest = request;
    this.#latestResponse = response;
  }

  begin(exchange: Exchange): void {
    if (this.#last === undefined) this.#first = exchange;
    else this.#last.next = exchange;
    this.#last = exchange;
  }

  /** Answers leave in order, so it is the first one, unless the connection breaks. */
  remove(exchange: Exchange): void {
    let before: Exchange | undefined;
    for (let at = this.#first; at !== exchange; at = at?.next) {
      if (at === undefined) return;
      before = at;
    }
    if (before === undefined) this.#first = exchange.next;
    else before.next = exchange.next;
    if (this.#last === exchange) this.#last = before;
    if (this.#closesAfter === exchange) this.#closesAfter = undefined;
    if (this.#latestResponse === exchange.response) this.#latestResponse = undefined;
    this.#requestOver();
    // The rest of an unread body does not belong to the next request either.
    if (!exchange.request.complete) exchange.request.once('end', () => this.#requestOver());
    // An idle connection holds nothing of what was on it.
    else if (this.#latest === exchange.request) this.#latest = undefined;
  }

  #requestOver(): void {
    this.#bytesBefore = this.socket.bytesRead;
  }

  get requests(): number {
    return this.#requests;
  }

  /** Takes a response that goes to the gate now. */
  judge(): void {
    this.#requests += 1;
    this.#unanswered += 1;
  }

  /** Notes that a response is closed. */
  answered(response: ServerResponse): void {
    this.#unanswered -= 1;
    if (response[EXCHANGE] === undefined) this.#refusedUnanswered -= 1;
  }

  /** Notes a refusal that is answered at once, even behind unanswered requests. */
  noteRefused(): void {
    this.#refusedUnanswered += 1;
    this.#requestOver();
  }

  /** Keeps a refused request's response until its turn has come. @returns whether it is the only one */
  addRefused(response: ServerResponse): boolean {
    this.noteRefused();
    return this.#refused.push(response) === 1;
  }

  /** The refused responses whose turn has come, in their order: none while a request before them is in flight. */
  takeRefused(): readonly ServerResponse[] {
    const refused = this.#refused;
    if (refused.length > 0 && this.#first === undefined) {
      this.#refused = [];
      return refused;
    }
    return [];
  }

  /** Keeps what was read past the limit, and reads no more until an answer has made room. */
  addWaiting(response: ServerResponse): void {
    if (this.#waiting === undefined) {
      this.#waiting = [];
      if (this.#input === 'parsed') this.#input = 'overran';
      this.socket.pause();
      // node:http resumes the socket whenever a body is read or dropped.
      this.socket.on('resume', pause);
    }
    this.#waiting.push(response);
  }

  /** The next one that may go to the gate. When none is left the socket is read again. */
  takeWaiting(mostUnanswered: number): ServerResponse | undefined {
    if (this.#waiting === undefined || this.closing || this.#unanswered >= mostUnanswered) return undefined;
    const response = this.#waiting[this.#nextWaiting];
    this.#nextWaiting += 1;
    if (this.#nextWaiting >= this.#waiting.length) {
      this.#waiting = undefined;
      this.#nextWaiting = 0;
      this.socket.off('resume', pause);
      this.socket.resume();
    }
    return response;
  }

  /** Whether one more has to wait until an answer has made room. */
  isFull(mostUnanswered: number): boolean {
    return this.#waiting !== undefined || this.#unanswered >= mostUnanswered;
  }

  /**
   * From here on nothing is read as a request: what came is none, or asks to leave HTTP. `step` answers it, in its
   * turn, unless an answer before it has ended the connection. Only the first counts.
   */
  endAfterLatest(step: () => void): void {
    if (this.#lastStep !== undefined) return;
    this.#lastStep = step;
    this.#afterLatest(() => this.closing || this.socket.destroyed || step());
  }

  /** The body of the latest request is broken. It has its answer, or will have it: there is no second one. */
  closeAfterLatest(): void {
    this.#afterLatest(() => this.close());
  }

  #afterLatest(step: () => void): void {
    const response = this.#latestResponse;
    if (response === undefined || response.closed) step();
    else response.once('close', step);
  }

  /**
   * Lets the last of the answers still to come say `Connection: close`, and only that one: Node throws away what is
   * behind an earlier one. When the last answer is a refusal, the refusal says so itself.
   */
  announceClose(): void {
    if (this.closing) return;
    // What is not read yet comes behind that answer, and only a socket that is read tells that its client is gone.
    if (this.#waiting !== undefined) this.#dropUnparsed();
    const last = this.#refusedUnanswered === 0 && this.endsWithLatest ? this.#last : undefined;
    if (this.#closesAfter === last) return;
    this.#closesAfter?.response?.removeHeader('Connection');
    this.#closesAfter = undefined;
    if (last?.response === undefined || last.response.headersSent) return;
    last.response.setHeader('Connection', 'close');
    this.#closesAfter = last;
  }

  /** Whether nothing that was read waits behind what was admitted or refused. */
  get endsWithLatest(): boolean {
    return this.#waiting === undefined && this.#lastStep === undefined;
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
    if (this.#input !== 'parsed') this.#dropUnparsed();
    else if (request !== undefined && !request.complete)
      request.once('end', () => destroyAfterFlush(socket)).resume();
    else if (this.#lastStep === undefined) destroyAfterFlush(socket);
    // Where nothing is read as a request any more, only the client's own end tells that it is done.
    if (this.#lastStep !== undefined) socket.resume();
  }

  /** Reads past the parser, which would make a request and a response of everything that a flood still brings. */
  #dropUnparsed(): void {
    if (this.#input === 'dropped') return;
    this.#input = 'dropped';
    const { socket } = this;
    socket.off('resume', pause);
    const drop = (): void => {
      socket.removeAllListeners('data');
      socket.on('data', () => undefined);
      // node:http does so itself, unless the client leaves in the middle of a request.
      socket.on('end', () => socket.end());
    };
    // Only while the parser is on it does node:http read a socket again that was paused.
    if (socket.isPaused()) socket.once('resume', drop).resume();
    else drop();
  }
}

// One function for all sockets: an idle connection costs no closures.
function pause(this: Socket): void {
  this.pause();
}

function close(this: Socket): void {
  Connection.of(this)?.close();
}

function destroyAfterFlush(socket: Socket): void {
  if (socket.writableFinished) socket.destroy();
  else socket.once('finish', () => socket.destroy());
}

/** Which sockets are open, what is on each, and how what was on them has ended. */
export class Connections {
  /** Requests that have ended, by outcome. */
  readonly outcomes: Record<Outcome, number> = { completed: 0, aborted: 0, cut: 0, closed: 0 };
  readonly #open = new Set<Connection>();
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
    for (const connection of this.#open) if (connection.idle) idle += 1;
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
    for (const connection of this.#open) yield* connection.exchanges();
  }

  /** Takes a new socket on. */
  open(socket: Socket): Connection {
    const connection = new Connection(socket);
    this.#arrivals += 1;
    this.#open.add(connection);
    socket[CONNECTION] = connection;
    // node:http calls this after an answer that ends the connection.
    socket.destroySoon = close;
    return connection;
  }

  /** Lets go of a connection whose socket is closed. */
  closed(connection: Connection): void {
    this.#open.delete(connection);
    if (this.size === 0) for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** The connection that a request came on. Undefined for a socket that was not opened here. */
  arrived(request: IncomingMessage, response?: ServerResponse): Connection | undefined {
    this.#arrivals += 1;
    const connection = request.socket[CONNECTION];
    connection?.arrived(request, response);
    return connection;
  }
}
