/**
 * What restarts do to clients, counted: with a listening socket that outlives the process, as master-agent.socket keeps
 * one, and without. Each scene has two loads in a closed loop, one on kept-alive connections and one that opens a
 * connection for each request, and so many restarts one after the other (SIGTERM, wait for the end, start).
 *
 * Exits with 1 when a connection was refused although its socket was kept.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { parseArgs } from 'node:util';
import { machine, table } from '../test/support/figures.ts';
import { LedgerClient } from '../test/support/ledger-client.ts';
import { ServerProcess } from '../test/support/server-process.ts';

const { values } = parseArgs({
  options: { restarts: { type: 'string', default: '5' }, json: { type: 'boolean', default: false } },
});
const restarts = Number(values.restarts);
const CONNECTIONS = 8;
/** Requests that a new process has to answer before it is restarted. */
const WARM_REQUESTS = 200;

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
    await ended(service);
    service = await start(port, stateDir, kept ? bound : undefined);
  }
  await answered(loads, WARM_REQUESTS);
  const ledgers = await Promise.all(loads.map((client) => client.stop()));
  await ended(service);
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

/** Comes back when so many more requests of each have been answered with 200. */
async function answered(loads: readonly LedgerClient[], more: number): Promise<void> {
  await Promise.all(loads.map((client) => client.answered(200, more / loads.length)));
}

/** Starts the service, as systemd does when it hands a socket over: as descriptor 3, for this very process. */
function start(port: number, stateDir: string, socket: Bound | undefined): Promise<ServerProcess> {
  const handed = socket === undefined ? '' : 'LISTEN_FDS=1 LISTEN_PID=$$ ';
  const command = `${handed}exec "$0" dist/main.js bench/servers/app.mjs`;
  const env = {
    ...{ HOST: '127.0.0.1', PORT: String(port), OPS_PORT: 'off', LOG_FORMAT: 'text', STATE_DIR: stateDir },
    NODE_ENV: 'production',
  };
  return ServerProcess.serving('sh', ['-c', command, process.execPath], {
    env,
    ...(socket === undefined ? {} : { third: socket as unknown as Readable }),
  });
}

async function ended(service: ServerProcess): Promise<void> {
  service.signal('SIGTERM');
  await service.exited;
}
