import type { ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import { BUCKETS, type TallySnapshot } from '../server/tally.ts';
import type { Status } from './status.ts';

/** What is counted while requests are served, as plain data that can cross to another process. */
export interface MetricsSnapshot {
  readonly status: Status;
  readonly tallies: readonly TallySnapshot[];
  /** Requests cut since the start: at a deadline, or because their body stalled. */
  readonly cut: number;
  readonly reloads: Readonly<Record<'done' | 'refused', number>>;
  /** Workers that ended and were replaced, and how many of them were killed because they were blocked. Null without. */
  readonly replaced: { readonly ended: number; readonly blocked: number } | null;
}

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [value: number, labels?: Labels, suffix?: string];

let loading: Promise<Registry> | undefined;

/** `GET /metrics` in Prometheus' text format, made from what was counted at the moment of the scrape. */
export async function metrics(response: ServerResponse, snapshot: MetricsSnapshot): Promise<void> {
  loading ??= processMetricsRegistry();
  const processMetrics = await loading;
  const text = `${serviceMetrics(snapshot)}\n${await processMetrics.metrics()}`;
  response.writeHead(200, {
    'Content-Type': processMetrics.contentType,
    'Content-Length': Buffer.byteLength(text),
  });
  response.end(text);
}

/** Loaded at the first scrape: prom-client takes a fifth of the time of a start. */
async function processMetricsRegistry(): Promise<Registry> {
  const { collectDefaultMetrics, Registry } = await import('prom-client');
  const register = new Registry();
  collectDefaultMetrics({ register });
  return register;
}

/** The counts are already there as plain numbers, so they are written without metric objects of the library. */
function serviceMetrics({ status, tallies, cut, reloads, replaced }: MetricsSnapshot): string {
  let text = '';
  const add = (type: string, name: string, help: string, samples: readonly Sample[]): void => {
    text += `# HELP master_agent_${name} ${help}\n# TYPE master_agent_${name} ${type}\n`;
    for (const [value, labels = {}, suffix = ''] of samples) {
      const pairs = Object.entries(labels).map(([label, word]) => `${label}="${escapeLabel(word)}"`);
      text += `master_agent_${name}${suffix}${pairs.length === 0 ? '' : `{${pairs.join()}}`} ${value}\n`;
    }
  };
  const gauge = (name: string, help: string, ...samples: Sample[]) => add('gauge', name, help, samples);
  const counter = (name: string, help: string, ...samples: Sample[]) => add('counter', name, help, samples);

  const { connections, rejected, workers, shutdown, last_shutdown: last, audit } = status;
  const states = ['starting', 'running', 'stopping', 'stopped'];
  gauge('info', 'The version that runs.', [1, { version: status.version }]);
  gauge(
    'state',
    'Whether the service is in this state: 1 or 0.',
    ...states.map((state): Sample => [Number(state === status.state), { state }]),
  );
  gauge('generation', 'Set of code and settings that serves; one more after each reload.', [
    status.generation,
  ]);
  gauge('in_flight_requests', 'Requests admitted whose response is not closed.', [status.in_flight.count]);
  gauge(
    'connections',
    'Open connections, by whether a request is on them.',
    [connections.open - connections.idle, { activity: 'active' }],
    [connections.idle, { activity: 'idle' }],
  );
  counter(
    'requests_refused_total',
    'Requests answered with 503 without having been dispatched.',
    ...(['starting', 'stopping', 'overloaded'] as const).map(
      (reason): Sample => [rejected[reason], { reason }],
    ),
  );
  counter('requests_cut_total', 'Requests in flight that a stop has cut.', [cut]);
  counter(
    'reloads_total',
    'Reloads, by outcome.',
    [reloads.done, { outcome: 'done' }],
    [reloads.refused, { outcome: 'refused' }],
  );
  if (replaced !== null) {
    const count = (state: string): number =>
      (workers ?? []).filter((worker) => worker.state === state).length;
    gauge(
      'workers',
      'Worker processes, by what they do.',
      ...['starting', 'serving', 'retiring'].map((state): Sample => [count(state), { state }]),
    );
    counter(
      'workers_replaced_total',
      'Workers that ended and were replaced, by whether they were killed because their event loop was blocked.',
      [Math.max(0, replaced.ended - replaced.blocked), { cause: 'ended' }],
      [replaced.blocked, { cause: 'blocked' }],
    );
  }

  const { program } = status;
  if (program !== null) {
    const { instances, restarts, holding } = program;
    gauge(
      'guard_instances',
      'Instances of the guarded program, by what they do.',
      ...['starting', 'serving', 'leaving'].map(
        (state): Sample => [instances.filter((instance) => instance.state === state).length, { state }],
      ),
    );
    counter(
      'guard_restarts_total',
      'Instances that were replaced: they ended, failed health checks, or accepted no more connections (deaf).',
      ...(['ended', 'unhealthy', 'deaf'] as const).map((cause): Sample => [restarts[cause], { cause }]),
    );
    gauge('guard_holding', 'Whether requests wait until the program is there again: 1 or 0.', [
      Number(holding),
    ]);
  }

  counter(
    'http_requests_total',
    'Admitted requests that have ended, by method, route and class of the status (none: without an answer).',
    ...tallies.flatMap(requestSamples),
  );
  add(
    'histogram',
    'http_request_duration_seconds',
    'Time from admission until the response was closed.',
    tallies.flatMap(durationSamples),
  );

  if (audit !== null) {
    gauge('audit_bytes', 'Size of the audit log file that is written.', [audit.bytes]);
    if (audit.disk_free_bytes !== null)
      gauge('audit_disk_free_bytes', 'What is left of the disk of the audit log.', [audit.disk_free_bytes]);
    gauge('audit_failed', 'Whether the audit log could not be written: 1 or 0.', [
      Number(audit.failure !== null),
    ]);
    gauge('audit_unclean_end', 'Whether the run before this one did not close the audit log: 1 or 0.', [
      Number(audit.unclean_end !== null),
    ]);
  }
  gauge('shutdown_in_progress', 'Whether a stop was ordered: 1 or 0.', [Number(shutdown !== null)]);
  if (shutdown !== null) {
    const { reason, started, deadline } = shutdown;
    gauge('shutdown_info', 'What has ordered the stop under way.', [1, { reason }]);
    gauge('shutdown_started_timestamp_seconds', 'When the stop under way was ordered.', [secondsOf(started)]);
    gauge('shutdown_deadline_timestamp_seconds', 'When the stop under way will cut what is in flight.', [
      secondsOf(deadline),
    ]);
  }
  if (last !== null)
    gauge('last_shutdown_unclean', 'Whether the run before this one ended without a stop: 1 or 0.', [
      Number(last.unclean),
    ]);
  if (last?.unclean === false) {
    const { reason, stopped_at, duration_seconds, in_flight_at_lock, cut, rejected, exit_code } = last;
    gauge('last_shutdown_info', 'What had ordered the last stop.', [1, { reason }]);
    gauge('last_shutdown_timestamp_seconds', 'When the last stop was over.', [secondsOf(stopped_at)]);
    gauge('last_shutdown_duration_seconds', 'How long the last stop took.', [duration_seconds]);
    gauge('last_shutdown_in_flight_requests', 'Requests in flight when the last stop locked.', [
      in_flight_at_lock,
    ]);
    gauge('last_shutdown_cut_requests', 'Requests that the last stop cut.', [cut.length]);
    gauge('last_shutdown_rejected_requests', 'Requests that the last stop refused.', [rejected]);
    gauge('last_shutdown_exit_code', 'What the last stop ended with.', [exit_code]);
  }
  return text;
}

function requestSamples({ method, route, classes }: TallySnapshot): Sample[] {
  const samples = classes.map((number, digit): Sample => {
    return [number, { method, route, status_class: digit === 0 ? 'none' : `${digit}xx` }];
  });
  return samples.filter(([number]) => number > 0);
}

function durationSamples({ method, route, buckets, sumSeconds }: TallySnapshot): Sample[] {
  let total = 0;
  const samples = buckets.map((number, index): Sample => {
    total += number;
    return [total, { le: String(BUCKETS[index] ?? '+Inf'), method, route }, '_bucket'];
  });
  if (total === 0) return [];
  return [...samples, [sumSeconds, { method, route }, '_sum'], [total, { method, route }, '_count']];
}

function secondsOf(iso: string): number {
  return Date.parse(iso) / 1000;
}

function escapeLabel(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
