import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { mostConnections } from '../platform/descriptors.ts';
import type { Connection, Connections } from './connections.ts';
import { dispatch } from './dispatch.ts';
import { Exchange, type Outcome, type ServerContext } from './exchange.ts';
import type { Gate } from './gate.ts';
import { holdAnswer } from './hold-answer.ts';
import { errorBody, sendError } from './response.ts';
import type { Router, UpgradeMatch } from './router.ts';

/** Limits that node:http enforces. Durations in milliseconds. */
export interface ServerLimits {
  readonly keepAliveTimeoutMs: number;
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly maxConnections: number;
  readonly maxHeaderBytes: number;
  readonly maxRequestsPerSocket: number;
}

export interface ServerParts extends ServerContext {
  readonly gate: Gate;
  readonly connections: Connections;
  readonly router: Router;
  /** Whether new connections still come: if not, each answer asks its client to come back on another one. */
  readonly accepting: () => boolean;
  /** Set when an answer may only leave once it is on record; false when it cannot be recorded. */
  readonly keep?: ((exchange: Exchange, whole: boolean, status: number) => Promise<boolean>) | undefined;
  /** Hears of every admitted request when it is over. */
  readonly ended: (exchange: Exchange, outcome: Outcome) => void;
}

export interface GatedServer {
  readonly server: Server;
  /** From now on the router's upgrade patterns are served. Before, and without any, an Upgrade header is ignored. */
  readonly takeUpgrades: () => void;
}

/** How often node:http looks for requests that are late. Its default of 30 s makes a 10 s limit a 40 s one. */
const LATENESS_CHECK_MS = 1_000;

/** How long connections that are too many are counted before one line in the log sums them up. */
const DROPPED_SUMMARY_MS = 1_000;

/**
 * The service's door: a node:http server in which every event by which a request can arrive leads to `arrive`, and
 * from there through the gate and the router to a handler.
 */
export function createHttpServer(parts: ServerParts, limits: ServerLimits): GatedServer {
  const { gate, connections, router } = parts;
  const options: ServerOptions & { shouldUpgradeCallback: (request: IncomingMessage) => boolean } = {
    maxHeaderSize: limits.maxHeaderBytes,
    connectionsCheckingInterval: LATENESS_CHECK_MS,
    // Checked below, behind the gate: while stopping even a request without a Host gets the 503.
    requireHostHeader: false,
    // Newer versions of Node ask; older ones take every upgrade once there is a listener.
    shouldUpgradeCallback: (request) => router.matchUpgrade(request.url ?? '') !== undefined,
  };
  const server = createServer(options);
  let dropped = 0;
  applyLimits(server, limits);

  server.on('connection', onConnection);
  server.on('request', read);
  server.on('checkContinue', read);
  server.on('checkExpectation', read);
  server.on('connect', (request) => {
    inTurn(request, () => arrive(request, responseOn(request)));
  });
  server.on('drop', onDropped);
  server.on('clientError', (error, socket) => onMalformed(error, socket as Socket));
  return { server, takeUpgrades: () => server.on('upgrade', onUpgrade) };

  function onConnection(socket: Socket): void {
    connections.open(socket, end);
    // node:http ends our side as soon as the client has ended its own: what is held for it is answered before that.
    socket.prependListener('end', () => {
      const connection = connections.of(socket);
      if (connection !== undefined) gate.answerHeld(connection);
    });
  }

  /** One more than may be open: node:http has closed it. Told once a second, for there may be thousands. */
  function onDropped(): void {
    dropped += 1;
    if (dropped > 1) return;
    setTimeout(() => {
      parts.log.warn(
        { dropped },
        `Closed ${dropped} connections at once: ${connections.size} are open, and no more than ${server.maxConnections} may be`,
      );
      dropped = 0;
    }, DROPPED_SUMMARY_MS).unref();
  }

  function read(request: IncomingMessage, response: ServerResponse): void {
    // Behind what was no request: the parser may go on, but another reader would not.
    if (connections.of(request.socket)?.concluded) return;
    const doubt = ambiguityOf(request);
    if (doubt === undefined) arrive(request, response);
    else {
      request.resume();
      onMalformed(doubt, request.socket);
    }
  }

  function arrive(request: IncomingMessage, response: ServerResponse, serve = serveRequest): void {
    const connection = connections.arrived(request, response);
    if (connection === undefined || connection.closing) return;
    const leave = gate.admit();
    if (leave === undefined) {
      gate.refuse(connection, response);
      return;
    }
    const exchange = new Exchange(request, response, connection.client, leave, parts);
    connection.begin(exchange);
    if (isLeaving()) connection.markLast();
    response.on('close', () => end(connection, exchange));
    // Written to after its end: the handler's failure, not the end of the service.
    response.on('error', (error) => exchange.fail(error));
    // Node says in this answer that the connection closes, but leaves the closing to the client.
    if (connection.requests === server.maxRequestsPerSocket)
      response.once('finish', () => connection.close());
    if (parts.keep !== undefined) holdAnswer(exchange, response, parts.keep);
    serve(exchange, response);
  }

  /** Whether clients are to come back on another connection, which each last answer on one tells them. */
  function isLeaving(): boolean {
    return parts.lifecycle.state === 'stopping' || !parts.accepting();
  }

  function serveRequest(exchange: Exchange, response: ServerResponse): void {
    dispatch(router, exchange, response);
  }

  /** @param stream for the handler: Node 26 puts one in front of the socket until the request's body is read */
  function onUpgrade(request: IncomingMessage, stream: Duplex, head: Buffer): void {
    const taker = router.matchUpgrade(request.url ?? '');
    inTurn(request, () => {
      if (taker !== undefined) arriveForUpgrade(request, stream, head, taker);
      // An upgrade nobody takes is ignored (RFC 9110 section 7.8), as far as an older Node lets us: it has already
      // taken the parser away, and a body with it.
      else arrive(request, responseOn(request), hasBody(request) ? refuseBody : serveRequest);
    });
  }

  function refuseBody(exchange: Exchange, response: ServerResponse): void {
    exchange.run(router.unrouted, [], response, () =>
      sendError(response, 501, 'An upgrade cannot be ignored for a request with a body.'),
    );
  }

  function arriveForUpgrade(
    request: IncomingMessage,
    stream: Duplex,
    head: Buffer,
    taker: UpgradeMatch,
  ): void {
    const connection = connections.arrived(request);
    if (connection === undefined) return;
    const leave = gate.admit();
    if (leave === undefined) {
      gate.refuse(connection, responseOn(request));
      return;
    }
    const exchange = new Exchange(request, undefined, connection.client, leave, parts);
    connection.begin(exchange);
    const { keep } = parts;
    if (keep === undefined) exchange.runUpgrade(taker.route, taker.values, stream, head);
    else {
      void keep(exchange, false, 101).then((kept) => {
        if (kept) exchange.runUpgrade(taker.route, taker.values, stream, head);
        else request.socket.destroy();
      });
    }
  }

  /**
   * node:http lets go of a connection as soon as it has read a request that asks to leave HTTP, also when requests
   * before it are still to be answered. It takes its listeners off, so what they did for those answers is done here.
   */
  function inTurn(request: IncomingMessage, step: () => void): void {
    const { socket } = request;
    const connection = connections.of(socket);
    if (connection === undefined || connection.closing) return;
    socket.on('error', () => socket.destroy());
    socket.on('drain', () => connection.exchanges[0]?.response?.emit('drain'));
    const doubt = ambiguityOf(request);
    connection.conclude(doubt === undefined ? step : () => answerMalformed(connection, doubt));
    if (isLeaving()) connection.markLast();
  }

  function end(connection: Connection, exchange: Exchange): void {
    if (!connection.end(exchange)) return;
    parts.ended(exchange, exchange.end());
    if (connection.refused.length > 0) gate.answer(connection);
  }

  /** What cannot be parsed ends the connection, but not before the requests ahead of it are answered. */
  function onMalformed(error: NodeJS.ErrnoException, socket: Socket): void {
    const connection = connections.of(socket);
    if (connection?.closing) return;
    if (connection === undefined || !socket.writable) {
      socket.destroy(error);
      return;
    }
    if (connection.sending) {
      const broken = connection.unread;
      if (broken === undefined) {
        connection.giveUp();
        return;
      }
      // It will never be complete.
      if (broken.response?.headersSent || connection.exchanges.length > 1) {
        socket.destroy(error);
        return;
      }
      end(connection, broken);
    }
    connection.conclude(() => answerMalformed(connection, error));
    if (isLeaving()) connection.markLast();
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

function answerMalformed(connection: Connection, error: NodeJS.ErrnoException): void {
  const status = statusOf(error);
  const body = JSON.stringify(errorBody(status, 'The request could not be read.'));
  connection.socket.write(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/json; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
  connection.close();
}

/**
 * What node:http takes for a request, and a stricter reader in front of us may not: where the two disagree about where
 * it ends, or what it is, one of them is given what the other has never seen.
 */
function ambiguityOf({ httpVersion, headers }: IncomingMessage): NodeJS.ErrnoException | undefined {
  if (httpVersion !== '1.1' && httpVersion !== '1.0') return new AmbiguousRequest('VERSION');
  const coding = headers['transfer-encoding'];
  if (coding === undefined) return undefined;
  // RFC 9112 sections 6.1 and 6.3: the last coding is chunked, there is no other that we know, and 1.0 has none.
  return httpVersion === '1.1' && coding.toLowerCase() === 'chunked'
    ? undefined
    : new AmbiguousRequest('CODING');
}

class AmbiguousRequest extends Error {
  readonly code: string;

  constructor(code: 'VERSION' | 'CODING') {
    super(`a request in doubt: ${code}`);
    this.code = code;
  }
}

function statusOf(error: NodeJS.ErrnoException): number {
  if (error.code === 'VERSION') return 505;
  if (error.code === 'HPE_HEADER_OVERFLOW') return 431;
  if (error.code === 'HPE_CHUNK_EXTENSIONS_OVERFLOW') return 413;
  return error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400;
}

function hasBody(request: IncomingMessage): boolean {
  return (
    request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0
  );
}

/** A response on a socket that node:http has let go of, for CONNECT and for upgrades that are not taken. */
function responseOn(request: IncomingMessage): ServerResponse {
  const { socket } = request;
  const response = new ServerResponse(request);
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
