import fc from 'fast-check';
import t from 'tap';
import { Router } from '../../src/server/router.ts';

/** A router as one would explain it: every pattern is tried in its order of precedence. Slow, and short enough to be believed. */
interface Entry {
  readonly kind: 'route' | 'mount';
  readonly method: string;
  readonly parts: readonly string[];
  readonly pattern: string;
}

type Found = { kind: string; pattern?: string; values?: readonly string[]; allow?: string };

function modelMatch(entries: readonly Entry[], method: string, target: string): Found {
  const path = target.split('?')[0] ?? '';
  if ([...target].some((character) => character <= ' ' || character > '~' || '#\\'.includes(character)))
    return { kind: 'bad target' };
  if (path === '*')
    return method === 'OPTIONS' ? { kind: 'options', allow: 'OPTIONS' } : { kind: 'bad target' };
  if (!path.startsWith('/')) return { kind: 'bad target' };
  let parts: string[];
  try {
    parts = path.slice(1).split('/').map(decodeURIComponent);
  } catch {
    return { kind: 'bad target' };
  }
  const fitting = entries
    .filter((entry) => fits(entry, parts))
    .sort((one, other) => (precedence(one) < precedence(other) ? -1 : 1));
  const taken = fitting.find((entry) => takes(entry, method, fitting)) ?? undefined;
  if (taken !== undefined) {
    const values = taken.parts.flatMap((part, at) => (part.startsWith(':') ? (parts[at] as string) : []));
    return { kind: 'route', pattern: taken.pattern, values };
  }
  if (fitting.length === 0) return { kind: 'not found' };
  const methods = fitting.flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method]));
  const allow = [...new Set([...methods, 'OPTIONS'])].sort().join(', ');
  return { kind: method === 'OPTIONS' ? 'options' : 'not allowed', allow };
}

function fits({ kind, parts: own }: Entry, parts: readonly string[]): boolean {
  if (kind === 'route' ? own.length !== parts.length : own.length > parts.length) return false;
  return own.every((part, at) => (part.startsWith(':') ? parts[at] !== '' : part === parts[at]));
}

/** Segment by segment: what is fixed goes before a parameter, and a mount comes when nothing below it fits. */
function precedence({ kind, parts }: Entry): string {
  return parts.map((part) => (part.startsWith(':') ? '1' : '0')).join('') + (kind === 'mount' ? '2' : '');
}

function takes(entry: Entry, method: string, fitting: readonly Entry[]): boolean {
  if (entry.kind === 'mount' || entry.method === method) return true;
  // HEAD is answered by GET, unless the same pattern has a HEAD of its own.
  const own = fitting.some(({ pattern, method }) => pattern === entry.pattern && method === 'HEAD');
  return method === 'HEAD' && entry.method === 'GET' && !own;
}

const segment = fc.constantFrom('a', 'b', 'orders', '', 'ü');
const patternSegment = fc.oneof(segment, fc.constantFrom(':x', ':y'));
const method = fc.constantFrom('GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS');
const entry = fc.record({
  kind: fc.constantFrom('route' as const, 'route' as const, 'mount' as const),
  method,
  parts: fc.array(patternSegment, { minLength: 1, maxLength: 3 }),
});
const target = fc.oneof(
  fc
    .array(fc.oneof(segment, fc.constantFrom('%61', '%zz', '%', 'c%2Fd', '%C3%BC')), {
      minLength: 1,
      maxLength: 4,
    })
    .map((parts) => `/${parts.join('/')}`),
  fc.constantFrom('*', '/', 'a', '//', '/a?x=/b', 'test:443'),
);

t.test('for any patterns and any request the router finds what the model finds', async (t) => {
  let routes = 0;
  fc.assert(
    fc.property(
      fc.array(entry, { maxLength: 8 }),
      fc.array(fc.tuple(method, target), { maxLength: 12 }),
      (made, asked) => {
        const router = new Router();
        const entries: Entry[] = [];
        for (const { kind, method, parts } of made) {
          const pattern = `/${parts.join('/')}`;
          // What cannot be registered is not there, in either.
          try {
            if (kind === 'route') router.on(method, pattern, () => undefined);
            else router.mount(pattern, () => undefined);
          } catch {
            continue;
          }
          const own = kind === 'mount' && parts.at(-1) === '' ? parts.slice(0, -1) : parts;
          entries.push({
            kind,
            method: kind === 'mount' ? '*' : method,
            parts: own,
            pattern: shown(kind, pattern),
          });
        }
        for (const [method, target] of asked) {
          const match = router.match(method, target);
          const found: Found =
            match.kind === 'route'
              ? { kind: 'route', pattern: match.route.pattern, values: match.values }
              : { kind: match.kind, ...(match.allow === undefined ? {} : { allow: match.allow }) };
          if (match.kind === 'route') routes += 1;
          const expected = modelMatch(entries, method, target);
          // Two patterns that differ in the names of their parameters alone are one to the router.
          const same = ({ pattern, ...rest }: Found): string =>
            JSON.stringify({ ...rest, pattern: pattern?.replaceAll(/:[xy]/g, ':') });
          if (same(found) !== same(expected)) {
            throw new Error(`${method} ${target}: found ${same(found)}, the model ${same(expected)}`);
          }
        }
      },
    ),
    { numRuns: 3_000 },
  );
  t.ok(routes > 500, `${routes} requests had a route`);
});

function shown(kind: Entry['kind'], pattern: string): string {
  return kind === 'mount' ? `${pattern.replace(/\/$/, '')}/*` : pattern;
}
