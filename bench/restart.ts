/**
 * What restarts do to clients, counted: with a listening socket that outlives the process, as master-agent.socket keeps
 * one, and without. Each scene has two loads in a closed loop, one on kept-alive connections and one that opens a
 * connection for each request, and so many restarts one after the other (SIGTERM, wait for the end, start).
 *
 * Exits with 1 when a connection was refused although its socket was kept.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { parseArgs } from 'node:util';
import { machine, table } from '../test/support/figures.ts';
import { LedgerClient } from '../test/support/ledger-client.ts';
import { ROOT } from '../test/support/root.ts';

const { values } = parseArgs({
  options: { restarts: { type: 'string', default: '5' }, json: { type: 'boolean', default: false } },
});
const restarts = Number(values.restarts);
const CONNECTIONS = 8;
/** Requests that a new process has to answer before it is restarted. */
const WARM_REQUESTS = 200;
/** How long that may take. */
const PATIENCE_MS = 30_000;

/** A socket that is bound and not accepted from: what node:cluster makes for its workers. */
interface Bound {
  getsockname(out: { port?: number }): number;
  close(): void;
}
const { _createServerHandle: bind } = net as unknown as {
  _createServerHandle(host: string, port: number, family: number): Bound | number;
};

interface Scene {
  readonly kept: boolean;
  readonly sent: number;
  readonly served: number;
  /** Answered with the 503 that says that the request may be sent again. */
  readonly retryable: number;
  readonly lost: number;
  readonly refused: number;
}

const load = loadavg()[0] ?? 0;
const scenes = [await scene(true), await scene(false)];
if (values.json) console.log(JSON.stringify({ machine: machine(availableParallelism(), load), scenes }));
else {
  console.log(`${machine(availableParallelism(), load)}\n`);
  console.log(
    `${restarts} restarts under ${2 * CONNECTIONS} clients, half of them with a connection for each request:\n`,
  );
  const rows = scenes.map(({ kept, sent, served, retryable, lost, refused }) => [
    kept ? 'the socket is kept' : 'the service opens its own',
    ...[sent, served, retryable, lost, refused].map(String),
  ]);
  console.log(
    table(['', 'requests', 'served', '503, may be sent again', 'lost', 'connections refused'], rows),
  );
}
process.exit(scenes.some(({ kept, refused }) => kept && refused > 0) ? 1 : 0);

async function scene(kept: boolean): Promise<Scene> {
  const stateDir = mkdtempSync(join(tmpdir(), 'master-agent-bench-restart-'));
  const bound = bind('127.0.0.1', 0, 4);
  if (typeof bound === 'number') throw new Error(`no socket could be bound: error ${bound}`);
  const name: { port?: number } = {};
  bound.getsockname(name);
  const port = name.port ?? 0;
  if (!kept) bound.close();
  let service = await start(port, stateDir, kept ? bound : undefined);
  const loads = [{}, { Connection: 'close' }].map((headers) =>
    LedgerClient.start({ port, connections: CONNECTIONS, headers: headers as Record<string, string> }),
  );
  for (let round = 0; round < restarts; round += 1) {
    await answered(loads, WARM_REQUESTS);
    service.kill('SIGTERM');
    await once(service, 'exit');
    service = await start(port, stateDir, kept ? bound : undefined);
  }
  await answered(loads, WARM_REQUESTS);
  const ledgers = await Promise.all(loads.map((client) => client.stop()));
  service.kill('SIGTERM');
  await once(service, 'exit');
  if (kept) bound.close();
  rmSync(stateDir, { recursive: true, force: true });
  const sum = (pick: (ledger: (typeof ledgers)[number]) => number): number =>
    ledgers.reduce((total, ledger) => total + pick(ledger), 0);
  return {
    kept,
    sent: sum(({ sent }) => sent),
    served: sum((ledger) => ledger.answers(200).length),
    retryable: sum((ledger) => ledger.answers(503).length),
    lost: sum(({ lost }) => lost),
    refused: sum(({ refused }) => [...refused.values()].reduce((total, count) => total + count, 0)),
  };
}

/** Comes back when so many more requests have been answered with 200. */
async function answered(loads: readonly LedgerClient[], more: number): Promise<void> {
  const count = (): number => loads.reduce((sum, { ledger }) => sum + ledger.answers(200).length, 0);
  const target = count() + more;
  const untilMs = performance.now() + PATIENCE_MS;
  while (count() < target) {
    if (performance.now() > untilMs) throw new Error(`only ${count()} of ${target} requests were answered`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Starts the service, as systemd does when it hands a socket over: as descriptor 3, for this very process. */
async function start(port: number, stateDir: string, socket: Bound | undefined): Promise<ChildProcess> {
  const command = `${socket === undefined ? '' : 'LISTEN_FDS=1 LISTEN_PID=$$ '}exec "$0" dist/main.js bench/servers/app.mjs`;
  const child = spawn('sh', ['-c', command, process.execPath], {
    cwd: ROOT,
    env: {
      ...process.env,
      ...{ HOST: '127.0.0.1', PORT: String(port), OPS_PORT: 'off', LOG_FORMAT: 'text', STATE_DIR: stateDir },
      NODE_ENV: 'production',
    },
    stdio: ['ignore', 'pipe', 'inherit', ...(socket === undefined ? [] : [socket as unknown as Readable])],
  });
  const lines = createInterface({ input: child.stdout as Readable });
  for await (const line of lines) if (line.includes('Service state: RUNNING')) return child;
  throw new Error('the service ended before it was running');
}
