import type { ServerResponse } from 'node:http';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { BUCKETS, type TallySnapshot } from '../server/tally.ts';
import type { Status } from './status.ts';

const STATES = ['starting', 'running', 'stopping', 'stopped'] as const;

/** What is counted while requests are served, as plain data that can cross to another process. */
export interface MetricsSnapshot {
  readonly status: Status;
  readonly tallies: readonly TallySnapshot[];
  /** Requests cut since the start: at a deadline, or because their body stalled. */
  readonly cut: number;
  readonly reloads: Readonly<Record<'done' | 'refused', number>>;
  /** Workers that ended and were replaced, and those of them that were killed because they were blocked. Null without. */
  readonly replaced: { readonly ended: number; readonly blocked: number } | null;
}

const HISTOGRAM = {
  name: 'master_agent_http_request_duration_seconds',
  help: 'Time from admission until the response was closed.',
  labelNames: ['method', 'route'],
};

let processMetrics: Registry | undefined;

/** `GET /metrics` in Prometheus' text format, made from what was counted at the moment of the scrape. */
export async function metrics(response: ServerResponse, snapshot: MetricsSnapshot): Promise<void> {
  if (processMetrics === undefined) {
    processMetrics = new Registry();
    collectDefaultMetrics({ register: processMetrics });
  }
  const text = await Registry.merge([serviceMetrics(snapshot), processMetrics]).metrics();
  response.writeHead(200, {
    'Content-Type': processMetrics.contentType,
    'Content-Length': Buffer.byteLength(text),
  });
  response.end(text);
}

function serviceMetrics({ status, tallies, cut, reloads, replaced }: MetricsSnapshot): Registry {
  const register = new Registry();
  const gauge = (name: string, help: string, value: number | undefined): void => {
    const metric = new Gauge({ name: `master_agent_${name}`, help, registers: [register] });
    if (value === undefined) metric.reset();
    else metric.set(value);
  };
  const labelled = <T extends string>(
    Kind: typeof Gauge | typeof Counter,
    name: string,
    help: string,
    labels: readonly T[],
    rows: readonly (readonly [Record<T, string>, number])[],
  ): void => {
    const metric = new Kind<T>({
      name: `master_agent_${name}`,
      help,
      labelNames: labels,
      registers: [register],
    });
    for (const [row, value] of rows) metric.inc(row, value);
  };

  labelled(Gauge, 'info', 'The version that runs.', ['version'], [[{ version: status.version }, 1]]);
  labelled(
    Gauge,
    'state',
    'Whether the service is in this state: 1 or 0.',
    ['state'],
    STATES.map((state) => [{ state }, state === status.state ? 1 : 0]),
  );
  gauge('generation', 'Set of code and settings that serves; one more after each reload.', status.generation);
  gauge('in_flight_requests', 'Requests admitted whose response is not closed.', status.in_flight.count);
  const { open, idle } = status.connections;
  labelled(
    Gauge,
    'connections',
    'Open connections, by whether a request is on them.',
    ['activity'],
    [
      [{ activity: 'active' }, open - idle],
      [{ activity: 'idle' }, idle],
    ],
  );
  labelled(
    Counter,
    'requests_refused_total',
    'Requests answered with 503 without having been dispatched.',
    ['reason'],
    (['starting', 'stopping', 'overloaded'] as const).map((reason) => [{ reason }, status.rejected[reason]]),
  );
  labelled(Counter, 'requests_cut_total', 'Requests in flight that a stop has cut.', [], [[{}, cut]]);
  labelled(
    Counter,
    'reloads_total',
    'Reloads, by outcome.',
    ['outcome'],
    [
      [{ outcome: 'done' }, reloads.done],
      [{ outcome: 'refused' }, reloads.refused],
    ],
  );
  if (replaced !== null) {
    labelled(
      Gauge,
      'workers',
      'Worker processes, by what they do.',
      ['state'],
      (['starting', 'serving', 'retiring'] as const).map((state) => [
        { state },
        (status.workers ?? []).filter((worker) => worker.state === state).length,
      ]),
    );
    labelled(
      Counter,
      'workers_replaced_total',
      'Workers that ended and were replaced, by whether they were killed because their event loop was blocked.',
      ['cause'],
      [
        [{ cause: 'ended' }, Math.max(0, replaced.ended - replaced.blocked)],
        [{ cause: 'blocked' }, replaced.blocked],
      ],
    );
  }
  labelled(
    Counter,
    'http_requests_total',
    'Admitted requests that have ended, by method, route and class of the status (none: without an answer).',
    ['method', 'route', 'status_class'],
    tallies.flatMap(({ method, route, classes }) =>
      classes.flatMap((number, digit) =>
        number === 0
          ? []
          : [[{ method, route, status_class: digit === 0 ? 'none' : `${digit}xx` }, number] as const],
      ),
    ),
  );
  register.registerMetric(new TallyHistogram(tallies));

  const { shutdown, last_shutdown: last, audit } = status;
  if (audit !== null) {
    gauge('audit_bytes', 'Size of the audit log file that is written.', audit.bytes);
    if (audit.disk_free_bytes !== null)
      gauge('audit_disk_free_bytes', 'What is left of the disk of the audit log.', audit.disk_free_bytes);
    gauge(
      'audit_failed',
      'Whether the audit log could not be written: 1 or 0.',
      audit.failure === null ? 0 : 1,
    );
    gauge(
      'audit_unclean_end',
      'Whether the run before this one did not close the audit log: 1 or 0.',
      audit.unclean_end === null ? 0 : 1,
    );
  }
  gauge('shutdown_in_progress', 'Whether a stop was ordered: 1 or 0.', shutdown === null ? 0 : 1);
  if (shutdown !== null) {
    labelled(
      Gauge,
      'shutdown_info',
      'What has ordered the stop under way.',
      ['reason'],
      [[{ reason: shutdown.reason }, 1]],
    );
    gauge(
      'shutdown_started_timestamp_seconds',
      'When the stop under way was ordered.',
      Date.parse(shutdown.started) / 1000,
    );
    gauge(
      'shutdown_deadline_timestamp_seconds',
      'When the stop under way will cut what is in flight.',
      Date.parse(shutdown.deadline) / 1000,
    );
  }
  if (last !== null) {
    gauge(
      'last_shutdown_unclean',
      'Whether the run before this one ended without a stop: 1 or 0.',
      last.unclean ? 1 : 0,
    );
    if (!last.unclean) {
      labelled(
        Gauge,
        'last_shutdown_info',
        'What had ordered the last stop.',
        ['reason'],
        [[{ reason: last.reason }, 1]],
      );
      gauge(
        'last_shutdown_timestamp_seconds',
        'When the last stop was over.',
        Date.parse(last.stopped_at) / 1000,
      );
      gauge('last_shutdown_duration_seconds', 'How long the last stop took.', last.duration_seconds);
      gauge(
        'last_shutdown_in_flight_requests',
        'Requests in flight when the last stop locked.',
        last.in_flight_at_lock,
      );
      gauge('last_shutdown_cut_requests', 'Requests that the last stop cut.', last.cut.length);
      gauge('last_shutdown_rejected_requests', 'Requests that the last stop refused.', last.rejected);
      gauge('last_shutdown_exit_code', 'What the last stop ended with.', last.exit_code);
    }
  }
  return register;
}

/** A histogram of what the routes have counted themselves. */
class TallyHistogram extends Histogram<string> {
  readonly #tallies: readonly TallySnapshot[];

  constructor(tallies: readonly TallySnapshot[]) {
    super({ ...HISTOGRAM, buckets: [...BUCKETS], registers: [] });
    this.#tallies = tallies;
  }

  /** What the registry reads; prom-client's own `get()` goes through it too. */
  async getForPromString() {
    const { name, help } = HISTOGRAM;
    return {
      name,
      help,
      type: 'histogram',
      values: this.#tallies.flatMap((tally) => histogramRows(name, tally)),
    };
  }
}

function histogramRows(name: string, { method, route, buckets, sumSeconds }: TallySnapshot) {
  let total = 0;
  const rows = buckets.map((number, index) => {
    total += number;
    const le = index < BUCKETS.length ? String(BUCKETS[index]) : '+Inf';
    return { metricName: `${name}_bucket`, labels: { le, method, route }, value: total };
  });
  if (total === 0) return [];
  return [
    ...rows,
    { metricName: `${name}_sum`, labels: { method, route }, value: sumSeconds },
    { metricName: `${name}_count`, labels: { method, route }, value: total },
  ];
}
