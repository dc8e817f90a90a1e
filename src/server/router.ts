import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Context } from './context.ts';
import { Tally, type TallySnapshot } from './tally.ts';

export type Handler = (request: IncomingMessage, response: ServerResponse, context: Context) => unknown;
export type UpgradeHandler = (
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  context: Context,
) => unknown;
/** Any `(request, response)` function: an Express app, a Koa callback, a handler for bare node:http. */
export type Mountable = (request: IncomingMessage, response: ServerResponse) => unknown;

const ON_STOP = ['finish', 'tell', 'close'] as const;
/**
 * What a stop means for a request. `finish`: it runs to its end. `tell`: its `context.stopping` is aborted at its turn
 * in DRAIN_SPREAD, and then it runs to its end. `close`: it is ended at the lock.
 */
export type OnStop = (typeof ON_STOP)[number];

export interface RouteOptions {
  /** Default: `finish`. */
  readonly onStop?: OnStop;
}

/** What is registered for a pattern: a handler, or options and a handler. */
type Rest<H> = readonly [handler: H] | readonly [options: RouteOptions, handler: H];

/** One method of one pattern, with what it has answered. */
export class Route<H = Handler> {
  readonly method: string;
  readonly pattern: string;
  readonly names: readonly string[];
  readonly handler: H;
  readonly onStop: OnStop;
  readonly tally = new Tally();

  constructor(
    method: string,
    pattern: string,
    names: readonly string[],
    handler: H,
    { onStop = 'finish' }: RouteOptions = {},
  ) {
    this.method = method;
    this.pattern = pattern;
    this.names = names;
    this.handler = handler;
    this.onStop = onStop;
  }
}

/** `values` are the decoded parameters, in the order of `route.names`. */
export interface RouteMatch<H = Handler> {
  readonly kind: 'route';
  readonly route: Route<H>;
  readonly values: readonly string[];
}

/** What was found for a request. */
export type Match =
  | RouteMatch
  | { readonly kind: 'options' | 'not allowed'; readonly allow: string }
  | { readonly kind: 'not found' | 'bad target'; readonly allow?: undefined };

const NOT_FOUND: Match = { kind: 'not found' };
const BAD_TARGET: Match = { kind: 'bad target' };
const ANY = '*';
const UPGRADE = 'UPGRADE';
/** What no target has (RFC 3986): two readers may make different things of it. A fragment never leaves the client. */
export const NO_TARGET = /[^!"$-[\]-~]/;

/** Everything that answers on one pattern. */
class Endpoint<H> {
  /** A match without parameters is the same object each time: the hot path allocates nothing for it. */
  readonly #matches = new Map<string, RouteMatch<H>>();

  add(route: Route<H>): void {
    const taken = this.#matches.get(route.method)?.route;
    if (taken !== undefined) {
      throw new Error(`router: ${route.method} ${route.pattern} is taken by ${taken.pattern}`);
    }
    this.#matches.set(route.method, { kind: 'route', route, values: [] });
  }

  match(method: string): RouteMatch<H> | undefined {
    return (
      this.#matches.get(method) ??
      (method === 'HEAD' ? this.#matches.get('GET') : undefined) ??
      this.#matches.get(ANY)
    );
  }

  /** For `Allow`. */
  get methods(): string[] {
    const methods = [...this.#matches.keys()];
    return methods.includes('GET') ? [...methods, 'HEAD'] : methods;
  }
}

/** One segment of the tree. A fixed segment goes before a parameter, and a parameter before a mount. */
class Segment<H> {
  readonly fixed = new Map<string, Segment<H>>();
  parameter: Segment<H> | undefined;
  endpoint: Endpoint<H> | undefined;
  mounted: Endpoint<H> | undefined;
}

/**
 * Finds the handler of a request. Patterns are `/fixed/:parameter` paths; a parameter is one segment, decoded, not
 * empty. Paths are compared as they came: no trailing slash is added or dropped, no case is folded.
 */
export class Router {
  readonly #root = new Segment<Handler>();
  /** Upgrades have a tree of their own, so that neither kind of pattern hides one of the other. */
  readonly #upgradeRoot = new Segment<UpgradeHandler>();
  /** Every path without parameters, for the one look-up that most requests need. */
  readonly #static = new Map<string, Endpoint<Handler>>();
  readonly #routes: (Route | Route<UpgradeHandler>)[] = [];
  #upgrades = 0;
  /** Counts what no route answers: 404, 405, OPTIONS and requests that are malformed. */
  readonly unrouted: RouteMatch = {
    kind: 'route',
    route: new Route<Handler>('*', '(none)', [], () => undefined),
    values: [],
  };

  get(pattern: string, ...rest: Rest<Handler>): this {
    return this.on('GET', pattern, ...rest);
  }
  post(pattern: string, ...rest: Rest<Handler>): this {
    return this.on('POST', pattern, ...rest);
  }
  put(pattern: string, ...rest: Rest<Handler>): this {
    return this.on('PUT', pattern, ...rest);
  }
  patch(pattern: string, ...rest: Rest<Handler>): this {
    return this.on('PATCH', pattern, ...rest);
  }
  delete(pattern: string, ...rest: Rest<Handler>): this {
    return this.on('DELETE', pattern, ...rest);
  }

  /**
   * @param method as on the wire, in capitals
   * @throws Error when the pattern is malformed, or the method and pattern are taken
   */
  on(method: string, pattern: string, ...rest: Rest<Handler>): this {
    if (!/^[A-Z][A-Z-]*$/.test(method)) {
      throw new Error(`router: want a method in capitals, got ${JSON.stringify(method)}`);
    }
    const [options, handler] = optionsAndHandler(rest, `${method} ${pattern}`);
    const { endpoint, names } = this.#endpoint(this.#root, pattern);
    if (names.length === 0 && !NO_TARGET.test(pattern)) this.#static.set(pattern, endpoint);
    const route = new Route(method, pattern, names, handler, options);
    endpoint.add(route);
    this.#routes.push(route);
    return this;
  }

  /** Takes over connections whose request asks to upgrade (WebSocket and others) at this pattern. */
  upgrade(pattern: string, ...rest: Rest<UpgradeHandler>): this {
    const [options, handler] = optionsAndHandler(rest, `upgrade ${pattern}`);
    const { endpoint, names } = this.#endpoint(this.#upgradeRoot, pattern);
    const route = new Route(UPGRADE, pattern, names, handler, options);
    endpoint.add(route);
    this.#routes.push(route);
    this.#upgrades += 1;
    return this;
  }

  /**
   * Gives every request below `prefix`, whatever its method, to a `(request, response)` function, with the prefix
   * moved from `request.url` to `request.baseUrl` and the whole kept in `request.originalUrl`, as Express does. It finds
   * the request's id where such functions look for one.
   */
  mount(prefix: string, ...rest: Rest<Mountable>): this {
    const [options, handler] = optionsAndHandler(rest, `mount ${prefix}`);
    const path = prefix.endsWith('/') ? prefix.slice(0, -1) : prefix;
    const parts = path === '' ? [] : split(path);
    const mounted: Handler = (request, response, { id }) => {
      const target = originOf(request.url ?? '/');
      const end = prefixEnd(parts.length, target);
      Object.assign(request, { originalUrl: request.url, baseUrl: target.slice(0, end) });
      request.url = target[end] === '/' ? target.slice(end) : `/${target.slice(end)}`;
      request.headers['x-request-id'] = id;
      return handler(request, response);
    };
    const route = new Route(ANY, `${path}/*`, [], mounted, options);
    const segment = plant(this.#root, parts, prefix, []);
    if (segment.mounted !== undefined) throw new Error(`router: mount ${prefix} is taken`);
    segment.mounted = new Endpoint<Handler>();
    segment.mounted.add(route);
    this.#routes.push(route);
    return this;
  }

  /** Whether any pattern takes upgrades: if none does, an Upgrade header is ignored, as node:http does. */
  get takesUpgrades(): boolean {
    return this.#upgrades > 0;
  }

  /** What each route has answered, in the order of registration. */
  tallies(): TallySnapshot[] {
    return [...this.#routes, this.unrouted.route].map((route) =>
      route.tally.snapshot(route.method, route.pattern),
    );
  }

  /** @param url the request's target as it came: a path, or a whole URL (RFC 9112 section 3.2) */
  match(method: string, url: string): Match {
    const query = url.indexOf('?');
    const path = query === -1 ? url : url.slice(0, query);
    const known = this.#static.get(path)?.match(method);
    if (known !== undefined && query === -1) return known;
    if (NO_TARGET.test(url)) return BAD_TARGET;
    if (known !== undefined) return known;
    if (path === '*') return method === 'OPTIONS' ? { kind: 'options', allow: 'OPTIONS' } : BAD_TARGET;
    const parts = partsOf(path);
    if (parts === undefined) return BAD_TARGET;
    const values: string[] = [];
    const found = descend(this.#root, parts, 0, values, method);
    if (found !== undefined)
      return values.length === 0 ? found : { kind: 'route', route: found.route, values };
    const allowed = methodsAt(this.#root, parts, 0);
    if (allowed.length === 0) return NOT_FOUND;
    const allow = [...new Set([...allowed, 'OPTIONS'])].sort().join(', ');
    return { kind: method === 'OPTIONS' ? 'options' : 'not allowed', allow };
  }

  /** The taker of an upgrade at this target, if there is one. */
  matchUpgrade(url: string): RouteMatch<UpgradeHandler> | undefined {
    const query = url.indexOf('?');
    const parts = partsOf(query === -1 ? url : url.slice(0, query));
    if (parts === undefined) return undefined;
    const values: string[] = [];
    const found = descend(this.#upgradeRoot, parts, 0, values, UPGRADE);
    return found === undefined ? undefined : { ...found, values };
  }

  #endpoint<H>(root: Segment<H>, pattern: string): { endpoint: Endpoint<H>; names: string[] } {
    const names: string[] = [];
    const segment = plant(root, split(pattern), pattern, names);
    segment.endpoint ??= new Endpoint<H>();
    return { endpoint: segment.endpoint, names };
  }
}

function plant<H>(root: Segment<H>, parts: readonly string[], pattern: string, names: string[]): Segment<H> {
  if (!pattern.startsWith('/') || /[?#*\s]/.test(pattern)) {
    throw new Error(`router: want a path like /orders/:id, got ${JSON.stringify(pattern)}`);
  }
  let segment = root;
  for (const part of parts) {
    let next: Segment<H> | undefined;
    if (part.startsWith(':')) {
      const name = part.slice(1);
      if (name === '' || names.includes(name)) {
        throw new Error(`router: want each parameter named, and once, got ${JSON.stringify(pattern)}`);
      }
      names.push(name);
      segment.parameter ??= new Segment<H>();
      next = segment.parameter;
    } else {
      const text = decode(part) ?? part;
      next = segment.fixed.get(text) ?? new Segment<H>();
      segment.fixed.set(text, next);
    }
    segment = next;
  }
  return segment;
}

/** The decoded segments of a path; undefined when it is none, or has a bad escape. */
function partsOf(path: string): string[] | undefined {
  const origin = path.startsWith('/') ? path : originOf(path);
  if (!origin.startsWith('/')) return undefined;
  const parts = split(origin);
  if (!origin.includes('%')) return parts;
  for (const [index, part] of parts.entries()) {
    const decoded = decode(part);
    if (decoded === undefined) return undefined;
    parts[index] = decoded;
  }
  return parts;
}

/**
 * Depth first, until something takes the method: what is fixed goes before a parameter, and a mount comes when nothing
 * else below it fits, the deepest first. What does not take the method is passed by, as if its pattern were another.
 * @param values filled with the parameters of what is found
 */
function descend<H>(
  segment: Segment<H>,
  parts: readonly string[],
  at: number,
  values: string[],
  method: string,
): RouteMatch<H> | undefined {
  const part = parts[at];
  if (part === undefined) return segment.endpoint?.match(method) ?? segment.mounted?.match(method);
  const fixed = segment.fixed.get(part);
  const found = fixed && descend(fixed, parts, at + 1, values, method);
  if (found !== undefined) return found;
  if (segment.parameter !== undefined && part !== '') {
    const depth = values.push(part);
    const below = descend(segment.parameter, parts, at + 1, values, method);
    if (below !== undefined) return below;
    values.length = depth - 1;
  }
  return segment.mounted?.match(method);
}

/** The methods of everything that fits a path. */
function methodsAt<H>(segment: Segment<H>, parts: readonly string[], at: number): string[] {
  const part = parts[at];
  const methods = segment.mounted?.methods ?? [];
  if (part === undefined) return [...methods, ...(segment.endpoint?.methods ?? [])];
  for (const next of [segment.fixed.get(part), part === '' ? undefined : segment.parameter]) {
    if (next !== undefined) methods.push(...methodsAt(next, parts, at + 1));
  }
  return methods;
}

/** Not `String.split`: for a path of a few segments that takes three times as long. */
function split(path: string): string[] {
  const parts: string[] = [];
  let start = 1;
  for (let end = path.indexOf('/', 1); end !== -1; end = path.indexOf('/', start)) {
    parts.push(path.slice(start, end));
    start = end + 1;
  }
  parts.push(path.slice(start));
  return parts;
}

/** The path of a target that is a whole URL; anything else is given back as it is. */
export function originOf(target: string): string {
  const scheme = target.indexOf('://');
  if (scheme <= 0 || target.startsWith('/')) return target;
  const path = target.indexOf('/', scheme + 3);
  const query = target.indexOf('?', scheme + 3);
  if (query !== -1 && (path === -1 || query < path)) return `/${target.slice(query)}`;
  return path === -1 ? '/' : target.slice(path);
}

/** Where a target's first `count` segments end, counted as they came: they may hold escapes. */
function prefixEnd(count: number, target: string): number {
  const query = target.indexOf('?');
  const pathEnd = query === -1 ? target.length : query;
  let at = 0;
  for (let index = 0; index < count; index += 1) {
    const next = target.indexOf('/', at + 1);
    if (next === -1 || next > pathEnd) return pathEnd;
    at = next;
  }
  return at;
}

function decode(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}

/** @throws TypeError that names what is wrong with them */
function optionsAndHandler<H>(rest: Rest<H>, where: string): readonly [RouteOptions, H] {
  const [options, handler] = rest.length === 1 ? [{}, rest[0]] : rest;
  if (typeof handler !== 'function') {
    throw new TypeError(
      `router: want a function for ${where}, got ${handler === null ? 'null' : typeof handler}`,
    );
  }
  if (typeof options !== 'object' || options === null)
    throw new TypeError(`router: want options { onStop } for ${where}, got ${typeof options}`);
  for (const [name, value] of Object.entries(options)) {
    if (name !== 'onStop')
      throw new TypeError(`router: want options { onStop } for ${where}, got ${JSON.stringify(name)}`);
    if (value !== undefined && !ON_STOP.includes(value))
      throw new TypeError(
        `router: onStop of ${where}: want one of ${ON_STOP.join(', ')}, got ${JSON.stringify(value)}`,
      );
  }
  return [options, handler];
}
