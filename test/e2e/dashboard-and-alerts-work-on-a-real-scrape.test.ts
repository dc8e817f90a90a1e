import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { need } from '../support/need.ts';
import { RawClient } from '../support/raw-client.ts';
import { freePort } from '../support/replicas.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';
import { WORKERS_APP } from '../support/workers-service.ts';

const DIR = 'deployment/prometheus';
need('prometheus');
/** How often it is asked again what a scrape or an evaluation has to bring about. */
const LOOK_MS = 200;

interface Panel {
  readonly title: string;
  readonly targets: readonly { readonly expr: string }[];
}
interface Rule {
  readonly name: string;
  readonly health: string;
  readonly lastError?: string;
  readonly state: string;
}

/** The queries of a dashboard as Grafana sends them when all replicas are chosen. */
function asSent(query: string): string {
  return query.replaceAll('$instance', '.*').replaceAll('$__rate_interval', '30s');
}

/** A Prometheus that scrapes this door each half second, with the shipped rules. */
class Prometheus {
  readonly #url: string;

  private constructor(port: number) {
    this.#url = `http://127.0.0.1:${port}/api/v1`;
  }

  static async watching(t: Test, opsPort: number): Promise<Prometheus> {
    const dir = tempDir(t);
    const port = await freePort();
    cpSync(`${DIR}/alerts.yml`, join(dir, 'alerts.yml'));
    const shipped = readFileSync(`${DIR}/prometheus.yml`, 'utf8');
    const config = shipped.replace(
      'scrape_interval: 15s',
      'scrape_interval: 500ms\n    scrape_timeout: 500ms',
    );
    writeFileSync(
      join(dir, 'prometheus.yml'),
      `global: { evaluation_interval: 500ms }\n${config.replace('127.0.0.1:8001', `127.0.0.1:${opsPort}`)}`,
    );
    const child = spawn(
      'prometheus',
      [
        `--config.file=${dir}/prometheus.yml`,
        `--storage.tsdb.path=${dir}/data`,
        `--web.listen-address=127.0.0.1:${port}`,
      ],
      { stdio: 'ignore' },
    );
    const exited = once(child, 'exit');
    t.teardown(async () => {
      child.kill('SIGTERM');
      await exited;
    });
    return new Prometheus(port);
  }

  /** Undefined while it starts. @throws what it complains of */
  async #ask<T>(path: string): Promise<T | undefined> {
    let response: Response;
    try {
      response = await fetch(`${this.#url}${path}`);
    } catch {
      return undefined;
    }
    if (response.status === 503) return undefined;
    const { status, data, error } = (await response.json()) as { status: string; data: T; error?: string };
    if (status !== 'success') throw new Error(`${path}: ${error}`);
    return data;
  }

  async samples(query: string): Promise<number> {
    const data = await this.#ask<{ result: unknown[] }>(`/query?query=${encodeURIComponent(query)}`);
    return data?.result.length ?? 0;
  }

  async rules(): Promise<Rule[]> {
    return (
      (await this.#ask<{ groups: { rules: Rule[] }[] }>('/rules'))?.groups.flatMap(({ rules }) => rules) ?? []
    );
  }

  /** Asks until it is so. What never comes about ends with the test's own time. */
  async until(look: (self: this) => Promise<boolean>): Promise<void> {
    while (!(await look(this))) await delay(LOOK_MS);
  }
}

t.test('every query of the dashboard and every alert has something to look at', async (t) => {
  const doors = tempDir(t);
  const options = { args: [WORKERS_APP], env: { WORKERS: '1', DOORS: doors } };
  const before = await ServiceProcess.running(t, options);
  before.signal('SIGTERM');
  await before.exited;
  const { stateDir } = before;
  const service = await ServiceProcess.running(t, { ...options, stateDir });
  const prometheus = await Prometheus.watching(t, service.opsPort);
  const instance = `instance="127.0.0.1:${service.opsPort}"`;
  await prometheus.until(async (self) => (await self.samples(`up{${instance}} == 1`)) === 1);

  await fetch(`http://127.0.0.1:${service.port}/`);
  await prometheus.until(
    async (self) => (await self.samples('rate(master_agent_http_requests_total[30s])')) > 0,
  );
  const held = (await RawClient.open(service.port)).get('/hold/last');
  await service.line('holding last');
  await service.stop();
  const firing = async (name: string): Promise<boolean> =>
    (await prometheus.rules()).some((rule) => rule.name === name && rule.state === 'firing');
  await prometheus.until(() => firing('MasterAgentShutdownBegan'));

  const text = await (await service.operator('/metrics')).text();
  const scraped = new Set([...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name));
  const dashboard = readFileSync(`${DIR}/dashboard.json`, 'utf8');
  const { panels } = JSON.parse(dashboard) as { panels: Panel[] };
  for (const { title, targets } of panels) {
    for (const { expr } of targets) t.ok(await prometheus.samples(asSent(expr)), `${title}: ${expr}`);
  }
  t.ok(await prometheus.samples('master_agent_state'));
  for (const file of [dashboard, readFileSync(`${DIR}/alerts.yml`, 'utf8')]) {
    for (const [name] of file.matchAll(/\b(master_agent|process|nodejs)_\w+/g)) {
      t.ok(scraped.has(name.replace(/_bucket$/, '')), `${name} is a metric of the service`);
    }
  }
  for (const { name, health, lastError } of await prometheus.rules())
    t.equal(health, 'ok', `${name} ${lastError}`);

  writeFileSync(join(doors, 'last'), '');
  t.equal((await held.response()).status, 200);
  await service.exited;
});
