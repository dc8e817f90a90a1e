import t from 'tap';
import { type App, HttpError, sendJson } from '../../src/index.ts';
import { version } from '../../src/version.ts';
import { Doors, type Embedded, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

interface Scrape {
  readonly samples: readonly Sample[];
  /** By the metric's name: its type, from a TYPE line that follows a HELP line. */
  readonly types: ReadonlyMap<string, string>;
  value(name: string, labels?: Readonly<Record<string, string>>): number | undefined;
}

const LABEL = /^([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"$/;
const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;

/** Reads Prometheus' text format. @throws at the first line that is none, or has no HELP and TYPE before it */
function parse(text: string): Scrape {
  const types = new Map<string, string>();
  const samples: Sample[] = [];
  let helped = '';
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  for (const line of text.split('\n')) {
    const [hash, kind, name = '', rest = ''] = line.split(' ');
    if (line === '') continue;
    if (hash === '#' && kind === 'HELP' && rest !== '') helped = name;
    else if (hash === '#' && kind === 'TYPE' && helped === name && !types.has(name)) types.set(name, rest);
    else {
      const [, sample = '', labels = '', value] = SAMPLE.exec(line) ?? [];
      const family = sample.replace(/_(bucket|sum|count)$/, '');
      if (value === undefined || !(types.has(sample) || types.has(family)))
        throw new Error(`no metric: ${line}`);
      const pairs = labels === '' ? [] : labels.split(/,(?=[a-zA-Z_]\w*=")/);
      const parsed = pairs.map((pair) => {
        const [, key, text] = LABEL.exec(pair) ?? [];
        if (key === undefined || text === undefined) throw new Error(`no label: ${pair} in ${line}`);
        return [key, text] as const;
      });
      samples.push({
        name: sample,
        labels: Object.fromEntries(parsed),
        value: value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value),
      });
    }
  }
  const keys = samples.map(({ name, labels }) => JSON.stringify([name, Object.entries(labels).sort()]));
  if (new Set(keys).size !== keys.length) throw new Error('a sample is there twice');
  const value = (name: string, labels: Readonly<Record<string, string>> = {}): number | undefined =>
    samples.find(
      (sample) =>
        sample.name === `master_agent_${name}` &&
        Object.entries(labels).every(([key, text]) => sample.labels[key] === text),
    )?.value;
  return { samples, types, value };
}

async function scrape({ operator }: Pick<Embedded, 'operator'>): Promise<Scrape> {
  return parse(await (await operator('/metrics')).text());
}

const REQUESTS = 'http_requests_total';
const DURATION = 'http_request_duration_seconds';

function app(doors = new Doors()): App {
  return {
    routes(router) {
      router.get('/orders/:id', (_request, response) => sendJson(response, 200, {}));
      router.get('/fail', () => {
        throw new HttpError(409, 'no');
      });
      router.get('/hold', async (_request, response) => {
        doors.open('held');
        await doors.wait('release');
        sendJson(response, 200, {});
      });
      router.mount('/legacy', (_request, response) => sendJson(response, 201, {}));
    },
  };
}

t.test('the answer is in the text format of Prometheus, each metric with HELP and TYPE', async (t) => {
  const service = await running(t, { app: app() });
  await service.ask('/orders/1');
  const answer = await service.operator('/metrics');
  t.equal(answer.status, 200);
  t.equal(answer.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
  const { types, value } = parse(await answer.text());
  t.match(
    Object.fromEntries(types),
    {
      master_agent_info: 'gauge',
      master_agent_state: 'gauge',
      master_agent_generation: 'gauge',
      master_agent_in_flight_requests: 'gauge',
      master_agent_connections: 'gauge',
      master_agent_requests_refused_total: 'counter',
      master_agent_requests_cut_total: 'counter',
      master_agent_http_requests_total: 'counter',
      master_agent_http_request_duration_seconds: 'histogram',
      master_agent_shutdown_in_progress: 'gauge',
      process_cpu_seconds_total: 'counter',
      nodejs_eventloop_lag_seconds: 'gauge',
    },
    'and those of the process are there too',
  );
  t.equal(value('info', { version }), 1);
  t.equal(value('generation'), 1);
  t.equal(value('shutdown_in_progress'), 0);
  t.equal(value('shutdown_deadline_timestamp_seconds'), undefined);
  t.equal(value('requests_cut_total'), 0);
});

t.test(
  'requests are counted by the route’s pattern, the method and the class, never by the path',
  async (t) => {
    const service = await running(t, { app: app() });
    for (const path of [
      '/orders/1',
      '/orders/2',
      '/fail',
      '/legacy/a',
      '/legacy/b',
      '/no/where',
      '/no/place',
    ]) {
      await (await service.ask(path)).text();
    }
    await service.ask('/orders/3', { method: 'DELETE' });
    const { samples, value } = await scrape(service);
    t.equal(value(REQUESTS, { method: 'GET', route: '/orders/:id', status_class: '2xx' }), 2);
    t.equal(value(REQUESTS, { method: 'GET', route: '/fail', status_class: '4xx' }), 1);
    t.equal(value(REQUESTS, { method: '*', route: '/legacy/*', status_class: '2xx' }), 2);
    t.equal(value(REQUESTS, { route: '(none)', status_class: '4xx' }), 3, 'two of 404 and one of 405');
    t.equal(value(REQUESTS, { route: '/hold' }), undefined, 'what never came has no sample');
    const routes = new Set(samples.map(({ labels }) => labels.route).filter((route) => route !== undefined));
    t.strictSame([...routes].sort(), ['(none)', '/fail', '/legacy/*', '/orders/:id']);

    await (await service.ask('/orders/4')).text();
    t.equal((await scrape(service)).value(REQUESTS, { route: '/orders/:id' }), 3, 'and they go up');
  },
);

t.test('the histogram is cumulative, and its last bucket is its count', async (t) => {
  const service = await running(t, { app: app() });
  for (let index = 0; index < 5; index += 1) await (await service.ask('/orders/1')).text();
  const { samples, value } = await scrape(service);
  const buckets = samples.filter(
    ({ name, labels }) => name === `master_agent_${DURATION}_bucket` && labels.route === '/orders/:id',
  );
  t.strictSame(
    buckets.map(({ labels }) => labels.le),
    [
      ...['0.001', '0.005', '0.01', '0.025', '0.05', '0.1', '0.25', '0.5'],
      ...['1', '2.5', '5', '10', '+Inf'],
    ],
  );
  const values = buckets.map(({ value }) => value);
  t.strictSame(
    values,
    values.toSorted((a, b) => a - b),
  );
  t.equal(values.at(-1), 5);
  t.equal(value(`${DURATION}_count`, { route: '/orders/:id' }), 5);
  t.ok((value(`${DURATION}_sum`, { route: '/orders/:id' }) ?? 0) > 0);
});

t.test('what is in flight, connections and state are as they are at the scrape', async (t) => {
  const doors = new Doors();
  const service = await running(t, { app: app(doors) });
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/orders/1').response()).status, 200);
  const busy = (await RawClient.open(service.port)).get('/hold');
  await doors.wait('held');
  const { value } = await scrape(service);
  t.equal(value('in_flight_requests'), 1);
  t.equal(value('connections', { activity: 'active' }), 1);
  t.equal(value('connections', { activity: 'idle' }), 1);
  t.equal(value('state', { state: 'running' }), 1);
  t.equal(value('state', { state: 'stopping' }), 0);

  const before = Date.now() / 1000;
  t.equal(value('shutdown_info'), undefined);
  const stopped = service.service.stop('a drill');
  t.equal((await idle.get('/orders/1').response()).status, 503);
  const during = await scrape(service);
  t.equal(during.value('state', { state: 'running' }), 0);
  t.equal(during.value('state', { state: 'stopping' }), 1);
  t.equal(during.value('shutdown_in_progress'), 1);
  t.equal(during.value('shutdown_info', { reason: 'a drill' }), 1);
  const deadline = during.value('shutdown_deadline_timestamp_seconds') ?? 0;
  t.ok(deadline > before + 29 && deadline < before + 35, `the deadline is at ${deadline - before} s`);
  t.equal(during.value('requests_refused_total', { reason: 'stopping' }), 1);
  t.equal(during.value('requests_refused_total', { reason: 'overloaded' }), 0);
  t.equal(during.value('requests_refused_total', { reason: 'starting' }), 0);
  t.equal(
    during.value(REQUESTS, { route: '/orders/:id' }),
    1,
    'what was refused is no request of a route: it was never dispatched',
  );
  doors.open('release');
  t.equal((await busy.response()).status, 200);
  await stopped;
});

t.test('a request that ended without an answer is counted so', async (t) => {
  const doors = new Doors();
  const service = await running(t, { app: app(doors) });
  const client = (await RawClient.open(service.port)).get('/hold');
  await doors.wait('held');
  client.destroy();
  const watcher = await RawClient.open(service.opsPort);
  for (let count = 1; count > 0; ) {
    count = JSON.parse((await watcher.get('/status').response()).body).in_flight.count;
  }
  t.equal((await scrape(service)).value(REQUESTS, { route: '/hold', status_class: 'none' }), 1);
});

t.test('a route’s pattern with quotes and backslashes is escaped', async (t) => {
  const service = await running(t, {
    app: { routes: (router) => router.get('/a"b\\c', (_request, response) => response.end()) },
  });
  const client = await RawClient.open(service.port);
  t.equal((await client.get('/a"b%5Cc').response()).status, 200);
  t.equal((await scrape(service)).value(REQUESTS, { route: '/a\\"b\\\\c' }), 1);
  client.destroy();
});
