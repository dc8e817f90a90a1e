import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import type { Duplex } from 'node:stream';
import { mostConnections } from '../platform/descriptors.ts';
import { plural } from '../plural.ts';
import { Connection, type Connections } from './connections.ts';
import { dispatch } from './dispatch.ts';
import { Exchange, type ServerContext } from './exchange.ts';
import type { Gate } from './gate.ts';
import { holdAnswer } from './hold-answer.ts';
import { hasValidHost } from './host.ts';
import { EXCHANGE, GatedRequest, GatedResponse, REQUEST_ID } from './messages.ts';
import type { RequestAudit } from './request-audit.ts';
import { newId } from './request-id.ts';
import { RequestWatch, type WatchParts } from './request-watch.ts';
import { errorBody, sendError } from './response.ts';
import type { RouteMatch, Router, UpgradeHandler } from './router.ts';
import type { WaitTrace } from './wait-trace.ts';

/** Limits that node:http enforces. Durations in milliseconds. */
export interface ServerLimits {
  readonly keepAliveTimeoutMs: number;
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly maxConnections: number;
  readonly maxHeaderBytes: number;
  readonly maxRequestsPerSocket: number;
}

const { emit } = GatedResponse.prototype;

export interface ServerParts extends ServerContext, WatchParts {
  readonly gate: Gate;
  readonly connections: Connections;
  /** Whether new connections still come: if not, each answer asks its client to come back on another one. */
  readonly accepting: () => boolean;
  readonly requestAudit: RequestAudit;
  /** Follows what handlers wait for; only with DRAIN_TRACE. */
  readonly waits?: WaitTrace | undefined;
}

/** What is behind the gate: our router, the listeners of an application's own server, or a program. */
export interface Application {
  /** Answers for what no handler is asked. */
  readonly unrouted: RouteMatch;
  serve(exchange: Exchange, response: ServerResponse): void;
  /** The taker of an upgrade. Without one an Upgrade header is ignored. */
  upgradeOf(request: IncomingMessage): RouteMatch<UpgradeHandler> | undefined;
  /** Hears of bytes that are no request. @returns whether it answers them */
  malformed?(error: Error, socket: Socket): boolean;
  /** Finds out at the end by which route an exchange was served. */
  label?(exchange: Exchange): void;
}

/** What a server does with the events by which something arrives. */
export interface Intake {
  readonly onConnection: (socket: Socket) => void;
  readonly onRequest: (request: IncomingMessage, response: ServerResponse) => void;
  /** @param stream for the handler: Node 26 puts one in front of the socket until the request's body is read */
  readonly onUpgrade: (request: IncomingMessage, stream: Duplex, head: Buffer) => void;
  readonly onMalformed: (error: NodeJS.ErrnoException, socket: Socket) => void;
  readonly onDropped: () => void;
}

export interface GatedServer {
  readonly server: Server;
  /** From now on upgrades are served. Before, an Upgrade header is ignored. */
  readonly takeUpgrades: () => void;
}

/** How often node:http looks for requests that are late. Its default of 30 s makes a 10 s limit a 40 s one. */
const LATENESS_CHECK_MS = 1_000;

/** Most header fields of a request. By default node:http reads this many and silently drops the rest. */
const MOST_FIELDS = 1_000;

/** How long connections that are too many are counted before one line in the log sums them up. */
const DROPPED_SUMMARY_MS = 1_000;

/** The handlers that a router finds. */
export function routed(router: Router): Application {
  return {
    unrouted: router.unrouted,
    serve: (exchange, response) => dispatch(router, exchange, response),
    upgradeOf: ({ method, url }) => (method === 'CONNECT' ? undefined : router.matchUpgrade(url ?? '')),
  };
}

/** A node:http server of our own, whose requests go through the gate to the application. */
export function createHttpServer(
  parts: ServerParts,
  application: Application,
  limits: ServerLimits,
): GatedServer {
  // From HTTP/1.0 an upgrade is ignored (RFC 9110 section 7.8).
  const takerOf = (request: IncomingMessage): RouteMatch<UpgradeHandler> | undefined =>
    request.httpVersion === '1.1' ? application.upgradeOf(request) : undefined;
  type Options = ServerOptions<typeof GatedRequest, typeof GatedResponse>;
  const options: Options & { shouldUpgradeCallback: (request: IncomingMessage) => boolean } = {
    IncomingMessage: GatedRequest,
    ServerResponse: GatedResponse,
    maxHeaderSize: limits.maxHeaderBytes,
    connectionsCheckingInterval: LATENESS_CHECK_MS,
    // Checked below, behind the gate: while stopping even a request without a Host gets the 503.
    requireHostHeader: false,
    // Newer versions of Node ask; older ones take every upgrade once there is a listener.
    // One with a bad Host leaves HTTP, too: its 400 ends the connection on every version.
    shouldUpgradeCallback: (request) => takerOf(request) !== undefined,
  };
  const server = createServer(options);
  const intake = intakeOf(parts, server, {
    unrouted: application.unrouted,
    serve: (exchange, response) => application.serve(exchange, response),
    upgradeOf: (request) => (hasValidHost(request) ? takerOf(request) : undefined),
  });
  // None is dropped unseen: what is too much is refused below.
  server.maxHeadersCount = 0;
  applyLimits(server, limits);
  server.on('connection', intake.onConnection);
  server.on('request', intake.onRequest);
  server.on('checkContinue', intake.onRequest);
  server.on('checkExpectation', intake.onRequest);
  server.on('connect', intake.onUpgrade);
  server.on('drop', intake.onDropped);
  server.on('clientError', (error, socket) => intake.onMalformed(error, socket as Socket));
  return { server, takeUpgrades: () => server.on('upgrade', intake.onUpgrade) };
}

/**
 * Leads every event by which a request can arrive at a server to `arrive`, and from there through the gate to the
 * application. `end` is the other end of each request.
 */
export function intakeOf(parts: ServerParts, server: Server, application: Application): Intake {
  const { gate, connections, requestAudit, proxies, waits } = parts;
  const watch = new RequestWatch(parts);
  const serve: Application['serve'] =
    waits === undefined
      ? application.serve
      : (exchange, response) => waits.run(exchange, () => application.serve(exchange, response));
  let dropped = 0;
  return {
    onConnection,
    onRequest: read,
    onUpgrade,
    onMalformed,
    onDropped,
  };

  /** Hears the end of a response without a listener for each, also when a framework gives the response other methods. */
  function hear(this: ServerResponse, event: string | symbol, ...args: unknown[]): boolean {
    if (event === 'close') closed(this);
    else if (event === 'error' && this[EXCHANGE] !== undefined) {
      // Written to after its end: the handler's failure, not the end of the service.
      this[EXCHANGE].fail(args[0]);
      if (this.listenerCount('error') === 0) return true;
    }
    return emit.call(this, event, ...args);
  }

  function onConnection(socket: Socket): void {
    connections.open(socket);
    // node:http ends our side as soon as the client has ended its own: what is held for it is answered before that.
    socket.prependListener('end', onEnd);
    socket.on('close', onClose);
  }

  function onEnd(this: Socket): void {
    const connection = Connection.of(this);
    if (connection !== undefined) gate.answerHeld(connection);
  }

  function onClose(this: Socket): void {
    const connection = Connection.of(this);
    if (connection === undefined) return;
    connections.closed(connection);
    // Responses queued behind the current one get no `close` event of their own from Node.
    for (const exchange of connection.exchanges()) end(connection, exchange);
  }

  /** One more than may be open: node:http has closed it. Told once a second, for there may be thousands. */
  function onDropped(): void {
    dropped += 1;
    if (dropped > 1) return;
    setTimeout(() => {
      parts.log.warn(
        { dropped },
        `Closed ${plural(dropped, 'connection')} at once: ${connections.size} are open, and no more than ${server.maxConnections} may be`,
      );
      dropped = 0;
    }, DROPPED_SUMMARY_MS).unref();
  }

  function read(request: IncomingMessage, response: ServerResponse): void {
    // Behind what was no request: the parser may go on, but another reader would not.
    if (Connection.of(request.socket)?.readsNoMore) return;
    const ambiguity = ambiguityOf(request);
    if (ambiguity === undefined) arrive(response);
    else {
      request.resume();
      onMalformed(ambiguity, request.socket);
    }
  }

  function arrive(response: ServerResponse, how = serve): void {
    const connection = connections.arrived(response.req, response);
    if (connection === undefined || connection.closing) return;
    if (connection.isFull(gate.maxPipelined)) connection.addWaiting(response);
    else judge(connection, response, how);
  }

  /** Admits a request and has it served, or refuses it. */
  function judge(connection: Connection, response: ServerResponse, how = serve): void {
    connection.judge();
    response.emit = hear;
    if (!gate.admit()) {
      response[REQUEST_ID] = proxies.idOf(connection.peer, response.req) ?? newId();
      watch.refused(response, connection.peer, gate.refuse(connection, response));
      return;
    }
    const exchange = new Exchange(response.req, response, connection.peer, parts);
    response[EXCHANGE] = exchange;
    response[REQUEST_ID] = exchange.id;
    connection.begin(exchange);
    if (asksClientsToLeave()) connection.announceClose();
    // Node says in this answer that the connection closes, but leaves the closing to the client.
    if (connection.requests === server.maxRequestsPerSocket)
      response.once('finish', () => connection.close());
    if (requestAudit.isStrict) holdAnswer(exchange, response, requestAudit);
    watch.serve(exchange, how, response);
  }

  /** Whether the last answer on each connection asks its client to come back on another one. */
  function asksClientsToLeave(): boolean {
    return parts.lifecycle.state === 'stopping' || !parts.accepting();
  }

  function closed(response: ServerResponse): void {
    const connection = Connection.of(response.req.socket);
    if (connection === undefined) return;
    connection.answered(response);
    if (response[EXCHANGE] !== undefined) end(connection, response[EXCHANGE]);
    for (;;) {
      const next = connection.takeWaiting(gate.maxPipelined);
      if (next === undefined) return;
      judge(connection, next);
    }
  }

  /** The end of an admitted request: its response, or its connection, is closed. */
  function end(connection: Connection, exchange: Exchange): void {
    const nowMs = performance.now();
    application.label?.(exchange);
    const outcome = exchange.end(nowMs);
    if (outcome === undefined) return;
    waits?.ended(exchange);
    connections.outcomes[outcome] += 1;
    requestAudit.ended(exchange, outcome, nowMs);
    watch.ended(exchange, outcome, nowMs);
    connection.remove(exchange);
    gate.answer(connection);
  }

  function onUpgrade(request: IncomingMessage, stream: Duplex, head: Buffer): void {
    const taker = application.upgradeOf(request);
    inTurn(request, () => {
      if (taker !== undefined) arriveForUpgrade(request, stream, head, taker);
      // An upgrade nobody takes is ignored (RFC 9110 section 7.8), as far as an older Node lets us: it has already
      // taken the parser away, and a body with it.
      else arrive(responseOn(request), hasBody(request) ? refuseBody : serve);
    });
  }

  function refuseBody(exchange: Exchange, response: ServerResponse): void {
    exchange.run(application.unrouted, response, () =>
      sendError(response, 501, 'An upgrade cannot be ignored for a request with a body.'),
    );
  }

  function arriveForUpgrade(
    request: IncomingMessage,
    stream: Duplex,
    head: Buffer,
    taker: RouteMatch<UpgradeHandler>,
  ): void {
    if (!gate.admit()) {
      arrive(responseOn(request));
      return;
    }
    const connection = connections.arrived(request);
    if (connection === undefined) return;
    const exchange = new Exchange(request, undefined, connection.peer, parts);
    connection.begin(exchange);
    const upgrade = (): void => void exchange.runUpgrade(taker, stream, head);
    const traced = waits === undefined ? upgrade : () => waits.run(exchange, upgrade);
    const run = (): void => watch.serve(exchange, traced, undefined);
    if (!requestAudit.isStrict) run();
    else
      void requestAudit.keep(exchange, false, 101).then((kept) => (kept ? run() : request.socket.destroy()));
  }

  /**
   * node:http lets go of a connection as soon as it has read a request that asks to leave HTTP, also when requests
   * before it are still to be answered. It takes its listeners off, so what they did for those answers is done here.
   */
  function inTurn(request: IncomingMessage, step: () => void): void {
    const { socket } = request;
    const connection = Connection.of(socket);
    if (connection === undefined || connection.closing) return;
    socket.on('error', () => socket.destroy());
    socket.on('drain', () => connection.current?.response?.emit('drain'));
    const ambiguity = ambiguityOf(request);
    connection.endAfterLatest(ambiguity === undefined ? step : () => answerMalformed(connection, ambiguity));
    if (asksClientsToLeave()) connection.announceClose();
  }

  /** Bytes that cannot be parsed end the connection, but not before the requests ahead of it are answered. */
  function onMalformed(error: NodeJS.ErrnoException, socket: Socket): void {
    const connection = Connection.of(socket);
    if (connection?.closing) return;
    if (connection === undefined || !socket.writable) {
      if (!application.malformed?.(error, socket)) socket.destroy(error);
      return;
    }
    let hasNoBody = false;
    if (connection.sending) {
      const broken = connection.receiving;
      if (broken === undefined) {
        connection.closeAfterLatest();
        return;
      }
      // It will never be complete.
      if (broken.response?.headersSent || connection.current !== broken) {
        socket.destroy(error);
        return;
      }
      hasNoBody = broken.method === 'HEAD';
      end(connection, broken);
    }
    connection.endAfterLatest(() => answerMalformed(connection, error, hasNoBody));
    if (asksClientsToLeave()) connection.announceClose();
  }

  /** Answers, by hand, what node:http has given up, unless the application does, and ends the connection. */
  function answerMalformed(connection: Connection, error: NodeJS.ErrnoException, hasNoBody = false): void {
    const { socket } = connection;
    const id = newId();
    // What was read as a request is refused as one.
    if (error instanceof AmbiguousRequest && gate.isLocked) gate.refuseRaw(connection, id);
    else if (!application.malformed?.(error, socket)) {
      const status = statusOf(error);
      const body = JSON.stringify(errorBody(status, 'The request could not be read.'));
      socket.write(
        `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nX-Request-Id: ${id}\r\n` +
          `Content-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\n` +
          `Date: ${new Date().toUTCString()}\r\nConnection: close\r\n\r\n${hasNoBody ? '' : body}`,
      );
      watch.malformed(id, connection.peer, status);
    }
    connection.close();
  }

  /** A response on a socket that node:http has let go of, for CONNECT and for upgrades that are not taken. */
  function responseOn(request: IncomingMessage): GatedResponse {
    const { socket } = request;
    const response = new GatedResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(socket);
    socket.resume();
    response.once('finish', () => {
      response.detachSocket(socket);
      socket.destroySoon();
      response.emit('close');
    });
    return response;
  }
}

/** Sets the limits that can also change while the server runs. */
export function applyLimits(server: Server, limits: ServerLimits): void {
  server.keepAliveTimeout = limits.keepAliveTimeoutMs;
  server.requestTimeout = limits.requestTimeoutMs;
  // Node exchanges the two when the head may take longer than the whole, and then the whole takes as long as the head.
  const longestHeadMs = limits.requestTimeoutMs > 0 ? limits.requestTimeoutMs : Number.POSITIVE_INFINITY;
  server.headersTimeout = Math.min(limits.headersTimeoutMs, longestHeadMs);
  server.maxRequestsPerSocket = limits.maxRequestsPerSocket;
  // Node has no value that means "no limit": it is the property's absence.
  const most = Math.min(limits.maxConnections || Number.POSITIVE_INFINITY, mostConnections());
  if (Number.isFinite(most)) server.maxConnections = most;
  else Reflect.deleteProperty(server, 'maxConnections');
}

/**
 * What node:http takes for a request, and a stricter reader in front of us may not: where the two disagree about where
 * it ends, or what it is, one of them is given what the other has never seen.
 */
function ambiguityOf({ httpVersion, headers, rawHeaders }: IncomingMessage): AmbiguousRequest | undefined {
  if (httpVersion !== '1.1' && httpVersion !== '1.0') return new AmbiguousRequest(505);
  if (rawHeaders.length > 2 * MOST_FIELDS) return new AmbiguousRequest(431);
  const length = headers['content-length'];
  // RFC 9110 section 8.6 allows leading zeros, but another reader may take them for an octal number.
  if (length !== undefined && length.length > 1 && length.startsWith('0')) return new AmbiguousRequest(400);
  const coding = headers['transfer-encoding'];
  if (coding === undefined) return undefined;
  // RFC 9112 sections 6.1 and 6.3: the last coding is chunked, there is no other that we know, and 1.0 has none.
  return httpVersion === '1.1' && coding.toLowerCase() === 'chunked' ? undefined : new AmbiguousRequest(400);
}

class AmbiguousRequest extends Error {
  readonly status: number;

  constructor(status: number) {
    super('an ambiguous request');
    this.status = status;
  }
}

/** What the parser says of bytes that it gives up, which are `rawPacket` or behind it. */
interface Malformed extends NodeJS.ErrnoException {
  readonly rawPacket?: Buffer;
  readonly bytesParsed?: number;
}

/** RFC 9112 section 2.3: a version that is well-formed, and not ours. */
const OTHER_VERSION = /^[^\r\n]* HTTP\/(?!1\.[01])\d\.\d\r\n/;
/** A request line whose target is longer than a whole head may be. */
const LONG_TARGET = /^[A-Z-]+ [^ \r\n]{1024}[^\r\n]*$/;

function statusOf(error: Malformed | AmbiguousRequest): number {
  if (error instanceof AmbiguousRequest) return error.status;
  const { code, rawPacket } = error;
  const packet = rawPacket?.toString('latin1') ?? '';
  if (code === 'HPE_INVALID_VERSION') return OTHER_VERSION.test(packet) ? 505 : 400;
  if (code === 'HPE_HEADER_OVERFLOW') {
    const line = packet.slice(0, error.bytesParsed);
    return LONG_TARGET.test(line) ? 414 : 431;
  }
  return code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400;
}

function hasBody(request: IncomingMessage): boolean {
  return (
    request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0
  );
}
