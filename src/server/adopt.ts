import { subscribe } from 'node:diagnostics_channel';
import { EventEmitter } from 'node:events';
import { IncomingMessage, type Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Connection } from './connections.ts';
import { GatedRequest, GatedResponse, storeHeader } from './messages.ts';
import { Route, type RouteMatch } from './router.ts';
import { type Application, intakeOf, type ServerParts } from './server.ts';
import type { TallySnapshot } from './tally.ts';

/** Patterns of one service. An application that makes routes while it runs may not fill the memory with them. */
const MOST_LABELS = 1_000;
const UNMATCHED = 'unmatched';

/** Where Fastify's pattern is kept; Express has it in `request.route`. */
const PATTERN = Symbol('pattern');

interface Labelled {
  readonly route?: { readonly path?: unknown };
  readonly [PATTERN]?: string;
}

/** Counts by the pattern of a route where the framework tells it; never by the path, which a client chooses. */
export class RouteLabels {
  /** By method, and by pattern. */
  readonly #matches = new Map<string, Map<unknown, RouteMatch>>();
  #count = 0;

  constructor() {
    subscribe('tracing:fastify.request.handler:start', (message) => {
      const { request, route } = message as { request: { raw: object }; route: { url?: string } };
      Object.assign(request.raw, { [PATTERN]: route.url });
    });
  }

  of(method: string, pattern: unknown = UNMATCHED): RouteMatch {
    // Two look-ups of strings that are kept cost less than one of a string that is made.
    let ofMethod = this.#matches.get(method);
    if (ofMethod === undefined) {
      ofMethod = new Map();
      this.#matches.set(method, ofMethod);
    }
    const known = ofMethod.get(pattern);
    if (known !== undefined) return known;
    if (pattern !== UNMATCHED && (typeof pattern !== 'string' || this.#count >= MOST_LABELS))
      return this.of(method);
    const match: RouteMatch = {
      kind: 'route',
      route: new Route(method, pattern, [], () => undefined),
      values: [],
    };
    ofMethod.set(pattern, match);
    this.#count += 1;
    return match;
  }

  ofRequest(request: IncomingMessage): RouteMatch {
    const { route, [PATTERN]: pattern } = request as Labelled;
    return this.of(request.method ?? '', pattern ?? route?.path);
  }

  tallies(): TallySnapshot[] {
    const matches = [...this.#matches.values()].flatMap((ofMethod) => [...ofMethod.values()]);
    return matches.map(({ route }) => route.tally.snapshot(route.method, route.pattern));
  }
}

/** What an application does to its server that cuts what is on it. */
const CLOSES = ['close', 'closeIdleConnections', 'closeAllConnections'] as const;

/**
 * Puts the gate in front of the listeners of an application's own server, also of those that are added later: they stay
 * the handlers. Its limits and options stay its own.
 * @param ending called when the application closes its server: undefined lets it; else the server is closed for it
 * when the promise resolves
 */
export function adoptServer(
  parts: ServerParts,
  server: Server,
  labels: RouteLabels,
  ending: () => Promise<void> | undefined,
): void {
  // Instrumentation may change the method of the prototype later.
  const own = Object.hasOwn(server, 'emit') ? server.emit : undefined;
  const hear = (...args: unknown[]): boolean =>
    Reflect.apply(own ?? Object.getPrototypeOf(server).emit, server, args);
  const heard = (name: string): boolean => EventEmitter.prototype.listenerCount.call(server, name) > 0;
  const unrouted = labels.of('*');
  const upgrade: RouteMatch<(...args: [IncomingMessage, Duplex, Buffer]) => void> = {
    kind: 'route',
    route: new Route('UPGRADE', UNMATCHED, [], (request, stream, head) => {
      // As node:http does where nobody takes a tunnel.
      if (!hear(request.method === 'CONNECT' ? 'connect' : 'upgrade', request, stream, head))
        stream.destroy();
    }),
    values: [],
  };
  const application: Application = {
    unrouted,
    serve: (exchange, response) => {
      // For the application's own log.
      exchange.request.headers['x-request-id'] = exchange.id;
      exchange.run(unrouted, response, (request) => dispatch(request, response));
    },
    upgradeOf: () => upgrade,
    malformed: (error, socket) => hear('clientError', error, socket),
    label: (exchange) => {
      if (exchange.response !== undefined) exchange.label(labels.ofRequest(exchange.request));
    },
  };
  const intake = intakeOf(parts, server, application);
  /** The event of a socket that speaks HTTP: of TLS, after the handshake. */
  const opened = 'setSecureContext' in server ? 'secureConnection' : 'connection';
  let closed: Promise<void> | undefined;
  let isClosed = false;

  server.emit = (name: string, ...args: never[]): boolean => {
    if (name === 'request' || name === 'checkContinue' || name === 'checkExpectation') {
      onRequest(...(args as unknown as [IncomingMessage, ServerResponse]));
    } else if (name === opened) {
      hear(name, ...args);
      intake.onConnection(args[0] as unknown as Socket);
    } else if (name === 'upgrade' || name === 'connect') {
      const [request, stream, head] = args as unknown as [IncomingMessage, Duplex, Buffer];
      known(request);
      intake.onUpgrade(request, stream, head);
    } else if (name === 'clientError') intake.onMalformed(...(args as unknown as [Error, Socket]));
    else {
      if (name === 'drop') intake.onDropped();
      // For the application it is closed after the drain, before the last connections have gone.
      if (name === 'close') {
        if (isClosed) return false;
        isClosed = closed !== undefined;
      }
      return hear(name, ...args);
    }
    return true;
  };
  // Asked by node:http, which answers these by itself, past the gate, where nobody listens.
  server.listenerCount = (name: string | symbol, ...rest: never[]): number => {
    const count = EventEmitter.prototype.listenerCount.call(server, name, ...rest);
    return name === 'checkContinue' || name === 'checkExpectation' || name === 'connect'
      ? Math.max(1, count)
      : count;
  };
  useOwnMessages(server);
  for (const name of CLOSES) {
    const close = server[name];
    server[name] = (done?: (error?: Error) => void): Server => {
      closed ??= ending();
      if (closed === undefined) Reflect.apply(close, server, [done]);
      else if (name === 'close') {
        void closed.then(() => {
          server.emit('close');
          done?.();
        });
      }
      return server;
    };
  }

  /** A connection that is older than the gate is taken over with its first request. */
  function known(request: IncomingMessage): void {
    if (Connection.of(request.socket) === undefined) intake.onConnection(request.socket);
  }

  function onRequest(request: IncomingMessage, response: ServerResponse): void {
    known(request);
    // The application has a class of its own, or the server read this before it was gated.
    if (!(response instanceof GatedResponse)) response._storeHeader = storeHeader;
    intake.onRequest(request, response);
  }

  /** What node:http does with an expectation where nobody listens for it. */
  function dispatch(request: IncomingMessage, response: ServerResponse): void {
    const { expect } = request.headers;
    if (expect === undefined || request.httpVersion !== '1.1') hear('request', request, response);
    else if (!/(?:^|\W)100-continue(?:$|\W)/i.test(expect)) {
      if (!hear('checkExpectation', request, response)) response.writeHead(417).end();
    } else if (heard('checkContinue')) hear('checkContinue', request, response);
    else {
      response.writeContinue();
      hear('request', request, response);
    }
  }
}

/**
 * Makes up for what the gate costs: our classes do the same as node:http's with less work. Where they are kept is not
 * documented; a server that has others, or a Node that keeps them elsewhere, goes on with its own.
 */
function useOwnMessages(server: Server): void {
  for (const key of Object.getOwnPropertySymbols(server)) {
    const value: unknown = Reflect.get(server, key);
    if (value === IncomingMessage) Reflect.set(server, key, GatedRequest);
    if (value === ServerResponse) Reflect.set(server, key, GatedResponse);
  }
}
