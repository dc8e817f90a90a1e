import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect, createServer as createNetServer } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';
import { readRecords } from './audit.ts';
import type { Entry } from './ledger.ts';
import { LedgerClient, type LoadOptions } from './ledger-client.ts';
import { INSTALL, need } from './need.ts';
import { ServiceProcess, type SpawnOptions, tempDir } from './service-process.ts';

/** A service that is started again and again on the same ports and with the same state. */
export class Replica {
  readonly port: number;
  readonly opsPort: number;
  readonly stateDir: string;
  service: ServiceProcess;
  readonly #t: Test;
  readonly #env: SpawnOptions['env'];

  private constructor(t: Test, service: ServiceProcess, env: SpawnOptions['env']) {
    this.#t = t;
    this.#env = env;
    this.service = service;
    this.stateDir = service.stateDir;
    this.port = service.port;
    this.opsPort = service.opsPort;
  }

  static async running(t: Test, env: SpawnOptions['env'] = {}): Promise<Replica> {
    return new Replica(t, await ServiceProcess.running(t, { env }), env);
  }

  async stop(): Promise<void> {
    this.service.signal('SIGTERM');
    await this.service.exited;
  }

  async start(): Promise<void> {
    const ports = { PORT: String(this.port), OPS_PORT: String(this.opsPort) };
    const options = { stateDir: this.stateDir, env: { ...this.#env, ...ports } };
    this.service = await ServiceProcess.running(this.#t, options);
  }

  /** How many requests with this method its runs have admitted, by their audit log. */
  admitted(method: string): number {
    const records = readRecords(join(this.stateDir, 'audit.ndjson'), 'request');
    return records.filter((record) => record.method === method).length;
  }
}

/** In turn, so that each way to them is used with a method that may be sent again by others, and one that may not. */
const TURNS = [
  { path: '/' },
  { method: 'POST', path: '/json', headers: { 'Content-Type': 'application/json' }, body: '{"order":17}' },
];
const PATIENCE_MS = 20_000;

/** Clients of replicas, which ask with GET and POST in turn. */
export class Clients {
  readonly #loads: readonly LedgerClient[];

  /** Half of them on connections that are kept, half on a new one for each request; or all as `connections` says. */
  constructor(
    port: number,
    clients: number,
    { connections, resend = false }: { connections?: 'kept' | 'fresh'; resend?: boolean } = {},
  ) {
    const ways = connections === undefined ? (['kept', 'fresh'] as const) : [connections];
    this.#loads = ways.map((way) => {
      const headers = way === 'fresh' ? { Connection: 'close' } : {};
      const turns = TURNS.map((turn) => ({ ...turn, headers: { ...turn.headers, ...headers } }));
      const options: LoadOptions = { port, connections: clients / ways.length, turns };
      return LedgerClient.start({ ...options, resend, timeoutMs: PATIENCE_MS });
    });
  }

  /** Resolves when so many more requests of each kind have been answered with 200. */
  async served(more: number): Promise<void> {
    await Promise.all(this.#loads.map((load) => load.answered(200, (2 * more) / this.#loads.length)));
  }

  /** Lets each client have its answer, and tells what became of all. `errors`: what a client must not see. */
  async stop(): Promise<{ posts: number; resent: number; errors: string[] }> {
    const ledgers = await Promise.all(this.#loads.map((load) => load.stop()));
    const told = ({ number, status, lost }: Entry): string =>
      `${TURNS[number % 2]?.method ?? 'GET'} ${status ?? lost}`;
    const ends = ledgers.flatMap(({ entries }) => entries.map(told));
    const refused = ledgers.flatMap(({ refusals }) => refusals.map(({ how }) => `a connection: ${how}`));
    return {
      posts: ends.filter((end) => end === 'POST 200').length,
      resent: ledgers.reduce((sum, { resent }) => sum + resent, 0),
      errors: [...ends.filter((end) => !end.endsWith(' 200')), ...refused],
    };
  }
}

/** Runs what rolling-restart.sh is given as its command: it restarts one of the replicas, by name. */
export async function restarter(t: Test, replicas: Readonly<Record<string, Replica>>): Promise<string> {
  const server = createServer(async (request, response) => {
    const replica = replicas[request.url?.slice(1) ?? ''];
    await replica?.stop();
    await replica?.start();
    response.writeHead(replica === undefined ? 404 : 200).end();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return `curl --silent --fail http://127.0.0.1:${(server.address() as AddressInfo).port}/"$1"`;
}

/** Runs a program and comes back with its exit code and all it has said. */
export async function runProgram(file: string, args: string[]): Promise<{ code: number; said: string }> {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      said += chunk;
    });
  }
  const [code] = await once(child, 'close');
  return { code, said };
}

export const PROXIES = {
  haproxy: startHaproxy,
  nginx: startNginx,
} as const;

/** The shipped configuration with the ports of a test. Its replicas are a on 8000 and 8001, b on 8010 and 8011. */
function configured(file: string, port: number, [a, b]: readonly [Replica, Replica]): string {
  const ports: Readonly<Record<string, number>> = {
    8080: port,
    8000: a.port,
    8001: a.opsPort,
    8010: b.port,
    8011: b.opsPort,
  };
  return readFileSync(file, 'utf8').replace(/(?<=:|port )80[018][01]\b/g, (number) => String(ports[number]));
}

/** @returns its port */
async function startHaproxy(t: Test, replicas: readonly [Replica, Replica]): Promise<number> {
  need('haproxy');
  const dir = tempDir(t);
  const port = await freePort();
  const file = join(dir, 'haproxy.cfg');
  writeFileSync(file, configured('deployment/haproxy/haproxy.cfg', port, replicas));
  await listening(t, spawn('haproxy', ['-db', '-f', file], { stdio: ['ignore', 'ignore', 'pipe'] }), port);
  return port;
}

/** @returns its port */
async function startNginx(t: Test, replicas: readonly [Replica, Replica]): Promise<number> {
  need('nginx', INSTALL.nginx, '-v');
  const dir = tempDir(t);
  const port = await freePort();
  writeFileSync(
    join(dir, 'master-agent.conf'),
    configured('deployment/nginx/master-agent.conf', port, replicas),
  );
  const places = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path ${dir}/${name};`,
  );
  writeFileSync(
    join(dir, 'nginx.conf'),
    `daemon off; master_process on; worker_processes 1; pid ${dir}/pid; error_log ${dir}/error.log;
     ${process.getuid?.() === 0 ? 'user root;' : ''}
     events {} http { access_log off; ${places.join(' ')} include ${dir}/master-agent.conf; }`,
  );
  const args = ['-p', dir, '-e', join(dir, 'error.log'), '-c', join(dir, 'nginx.conf')];
  await listening(t, spawn('nginx', args, { stdio: ['ignore', 'ignore', 'pipe'] }), port);
  return port;
}

export async function listening(t: Test, proxy: ChildProcess, port: number): Promise<void> {
  let said = '';
  proxy.stderr?.on('data', (chunk) => {
    said += chunk;
  });
  const exited = once(proxy, 'exit');
  t.teardown(async () => {
    proxy.kill('SIGTERM');
    await exited;
  });
  while (!(await accepts(port))) {
    if (proxy.exitCode !== null) throw new Error(`the proxy ended with ${proxy.exitCode}: ${said}`);
  }
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  const connected = once(socket, 'connect').then(
    () => true,
    () => false,
  );
  return connected.finally(() => socket.destroy());
}

export async function freePort(): Promise<number> {
  const server = createNetServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
