/**
 * What the way of a request costs beyond node:http, in process and without sockets: nanoseconds and bytes a request.
 *
 * The whole way is what `server.ts` does between node:http's `request` event and the response's `close`. The parts are
 * measured by themselves, in loops of their own, so they do not add up exactly. The request and the response are made
 * once, by node:http itself; on them, listeners are added and called as in life. A handler that does nothing answers.
 * The best batch is the one that nothing else on the machine has disturbed.
 */
import { once } from 'node:events';
import { IncomingMessage, ServerResponse } from 'node:http';
import { type AddressInfo, Socket } from 'node:net';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { machine, median, table } from '../test/support/figures.ts';
import { compileModules } from '../test/support/modules.mjs';
import { ROOT } from '../test/support/root.ts';

const { values } = parseArgs({
  options: {
    batches: { type: 'string', default: '300' },
    requests: { type: 'string', default: '5000' },
    json: { type: 'boolean', default: false },
  },
});
const batches = Number(values.batches);
const requests = Number(values.requests);
/** After so many the optimiser has nothing left to learn. */
const WARM_UP = 200_000;
/** Few enough that no collection runs while the bytes of so many are counted. */
const COUNTED = 2_000;

/** Compiled as `dist` is: a loader that compiles on the fly adds to functions what we would measure. */
const compiled = join(ROOT, '.tests/bench');
await compileModules(compiled);
const { Connections } = await load<typeof import('../src/server/connections.ts')>('server/connections.js');
const { createHttpServer, routed } = await load<typeof import('../src/server/server.ts')>('server/server.js');
const { Exchange } = await load<typeof import('../src/server/exchange.ts')>('server/exchange.js');
const { Gate } = await load<typeof import('../src/server/gate.ts')>('server/gate.js');
const { hasValidHost } = await load<typeof import('../src/server/host.ts')>('server/host.js');
const { InFlight } = await load<typeof import('../src/server/in-flight.ts')>('server/in-flight.js');
const { RequestAudit } =
  await load<typeof import('../src/server/request-audit.ts')>('server/request-audit.js');
const { Router } = await load<typeof import('../src/server/router.ts')>('server/router.js');
const { TrustedProxies } =
  await load<typeof import('../src/server/trusted-proxies.ts')>('server/trusted-proxies.js');
const { Tally } = await load<typeof import('../src/server/tally.ts')>('server/tally.js');
const { FlightRecorder } = await load<typeof import('../src/backends/workers/flight-recorder.ts')>(
  'backends/workers/flight-recorder.js',
);
const { openFlightFile } = await load<typeof import('../src/backends/workers/flight-record.ts')>(
  'backends/workers/flight-record.js',
);
const { Lifecycle } = await load<typeof import('../src/lifecycle/lifecycle.ts')>('lifecycle/lifecycle.js');
const { completeConfig } = await load<typeof import('../src/config/settings.ts')>('config/settings.js');
const { createLogger } = await load<typeof import('../src/platform/logger.ts')>('platform/logger.js');

setFlagsFromString('--expose-gc');
const collect: () => void = runInNewContext('gc');

const config = completeConfig({});
const log = createLogger({ level: 'info', format: 'json' });
const noop = (): void => undefined;
const lifecycle = new Lifecycle();
const inFlight = new InFlight();
const connections = new Connections();
const router = new Router();
// As many routes as a service of middling size has.
for (const noun of ['orders', 'customers', 'files', 'reports', 'users', 'items', 'carts', 'events']) {
  router.get(`/${noun}`, () => undefined).post(`/${noun}`, () => undefined);
  router.get(`/${noun}/:id`, () => undefined).get(`/${noun}/:id/lines/:line`, () => undefined);
}
const proxies = new TrustedProxies(undefined);
const around = { lifecycle, inFlight, log, proxies };
const requestAudit = new RequestAudit();
const gate = new Gate({ ...around, connections, requestAudit }, config);
const parts = {
  ...around,
  gate,
  connections,
  accepting: () => true,
  logsAccess: () => false,
  requestAudit,
};
const { server } = createHttpServer(parts, routed(router), config);
lifecycle.to('running');

/** As node:http's parser makes it, a target is a new string each time: no hash is known of it, no split remembered. */
const targets = { fixed: [] as string[], parameter: [] as string[] };
const socket = new Socket();
server.emit('connection', socket);
const request = requestOn(socket);
const response = await answeredResponse(request);
const route = router.match('GET', '/orders');
if (route.kind !== 'route') throw new Error('want a route');
const tally = new Tally();
/** What only a worker has. */
const recorder = new FlightRecorder({
  ...{ fd: openFlightFile(tmpdir()), run: 'bench', controller: process.ppid },
  orphanedMs: Number.POSITIVE_INFINITY,
  failed: (error) => {
    throw error;
  },
});
/** Keeps the optimiser from dropping what nobody reads. */
const kept: { value: unknown } = { value: undefined };

const HEAD = { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': 17 };

/** What is measured: each is called with the number of times it has to do its work. */
const subjects: Readonly<Record<string, (times: number) => void>> = {
  'the whole way, fixed path': (times) => {
    for (let n = 0; n < times; n += 1) whole(targets.fixed[n]);
  },
  'the whole way, one parameter': (times) => {
    for (let n = 0; n < times; n += 1) whole(targets.parameter[n]);
  },
  'connections: arrived': (times) => {
    for (let n = 0; n < times; n += 1) connections.arrived(request, response);
  },
  'gate: admit and leave': (times) => {
    for (let n = 0; n < times; n += 1) if (gate.admit()) inFlight.leave();
  },
  'router: fixed path': (times) => {
    for (let n = 0; n < times; n += 1) router.match('GET', targets.fixed[n] as string);
  },
  'router: one parameter': (times) => {
    for (let n = 0; n < times; n += 1) router.match('GET', targets.parameter[n] as string);
  },
  'host: valid, and alone': (times) => {
    for (let n = 0; n < times; n += 1) kept.value = hasValidHost(request);
  },
  'exchange: made': (times) => {
    for (let n = 0; n < times; n += 1) kept.value = new Exchange(request, response, '127.0.0.1', parts);
  },
  'exchange: made, run, ended': (times) => {
    for (let n = 0; n < times; n += 1) {
      const exchange = new Exchange(request, response, '127.0.0.1', parts);
      exchange.run(route, response);
      inFlight.add();
      exchange.end();
    }
  },
  'flight recorder: begin, end': (times) => {
    for (let n = 0; n < times; n += 1) {
      const url = targets.fixed[n] as string;
      recorder.end(recorder.begin({ number: n + 1, givenId: undefined, method: 'GET', url, startedMs: n }));
    }
  },
  "head: node:http's and the id": (times) => {
    for (let n = 0; n < times; n += 1) {
      response._storeHeader('HTTP/1.1 200 OK\r\n', HEAD);
      Reflect.set(response, '_header', null);
    }
  },
  "head: node:http's": (times) => {
    for (let n = 0; n < times; n += 1) {
      ServerResponse.prototype._storeHeader.call(response, 'HTTP/1.1 200 OK\r\n', HEAD);
      Reflect.set(response, '_header', null);
    }
  },
  'tally: count': (times) => {
    for (let n = 0; n < times; n += 1) tally.count(200, n & 15);
  },
  'clock: performance.now()': (times) => {
    for (let n = 0; n < times; n += 1) kept.value = performance.now();
  },
  'listener: added, called, removed': (times) => {
    for (let n = 0; n < times; n += 1) {
      response.on('close', noop);
      response.emit('close');
      response.removeAllListeners('close');
    }
  },
};

const loadAtStart = loadavg()[0] ?? 0;
const timings = new Map<string, number[]>(Object.keys(subjects).map((name) => [name, []]));
const allocations = new Map<string, number[]>(Object.keys(subjects).map((name) => [name, []]));
refill(WARM_UP);
for (const subject of Object.values(subjects)) subject(WARM_UP);
for (let batch = 0; batch < batches; batch += 1) {
  for (const [name, subject] of Object.entries(subjects)) {
    timings.get(name)?.push(nanosPer(subject));
    if (batch % 20 === 0) allocations.get(name)?.push(bytesPer(subject));
  }
}
if (inFlight.count !== 0 || connections.outcomes.completed === 0)
  throw new Error(`${inFlight.count} requests are still in flight`);
report();

/** From the `request` event to the response's `close`. */
function whole(target: string | undefined): void {
  request.url = target as string;
  server.emit('request', request, response);
  response.emit('close');
}

function nanosPer(subject: (times: number) => void): number {
  refill(requests);
  const startedNanos = process.hrtime.bigint();
  subject(requests);
  return Number(process.hrtime.bigint() - startedNanos) / requests;
}

function bytesPer(subject: (times: number) => void): number {
  refill(COUNTED);
  collect();
  const before = process.memoryUsage().heapUsed;
  subject(COUNTED);
  return (process.memoryUsage().heapUsed - before) / COUNTED;
}

function refill(count: number): void {
  targets.fixed = Array.from({ length: count }, () => Buffer.from('/orders').toString('latin1'));
  targets.parameter = Array.from({ length: count }, (_, n) => Buffer.from(`/orders/${n}`).toString('latin1'));
}

function requestOn(socket: Socket): IncomingMessage {
  const request = new IncomingMessage(socket);
  Object.assign(request, { method: 'GET', httpVersion: '1.1', complete: true });
  request.httpVersionMajor = 1;
  request.httpVersionMinor = 1;
  request.rawHeaders.push('Host', 'localhost:8000', 'User-Agent', 'bench', 'Accept', '*/*');
  // node:http reads them for itself before it says that a request came; they are parsed once.
  void Object.assign(request.headers, { host: 'localhost:8000', 'user-agent': 'bench', accept: '*/*' });
  return request;
}

/** One whose answer has been sent. Its class is the server's own, taken from a request that really came. */
async function answeredResponse(request: IncomingMessage): Promise<ServerResponse> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const answered = fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  const [, real] = await once(server, 'request');
  await (await answered).arrayBuffer();
  server.closeAllConnections();
  server.close();
  const response: ServerResponse = new real.constructor(request);
  for (const [name, value] of Object.entries({ headersSent: true, writableFinished: true })) {
    Object.defineProperty(response, name, { value });
  }
  return response;
}

async function load<T>(file: string): Promise<T> {
  return import(join(compiled, 'src', file));
}

function report(): void {
  const figures = Object.keys(subjects).map((name) => {
    const nanos = timings.get(name) ?? [];
    const bytes = Math.max(median(allocations.get(name) ?? []), 0);
    return { name, best: Math.min(...nanos), median: median(nanos), bytes };
  });
  if (values.json) {
    console.log(JSON.stringify({ node: process.version, batches, requests, load: loadAtStart, figures }));
    return;
  }
  console.log(`\n## The hot path: ${batches} batches of ${requests} requests\n`);
  console.log(`${machine(availableParallelism(), loadAtStart)}\n`);
  console.log(
    table(
      ['part', 'ns, best batch', 'ns, median', 'bytes'],
      figures.map(({ name, best, median, bytes }) => [
        name,
        best.toFixed(0),
        median.toFixed(0),
        bytes.toFixed(0),
      ]),
    ),
  );
}
