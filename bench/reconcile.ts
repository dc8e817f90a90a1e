/**
 * Whether three accounts of one load agree: the ledger of a client that sends orders at a constant rate (open loop, one
 * entry for each), the audit log of the service, and the application's own list of what it has seen. The service is
 * stopped in the middle of it. Alone and under a supervisor, with both modes of the audit log.
 *
 * Exits with 1 when a request was lost, when a 200 is missing in one of the accounts, when one that was refused had
 * been dispatched, or when the service did not exit with 0.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { compare, type Differences, requestsIn } from '../test/support/accounts.ts';
import { machine, table } from '../test/support/figures.ts';
import { LedgerClient } from '../test/support/ledger-client.ts';
import { type Exit, ServerProcess } from '../test/support/server-process.ts';

const { values } = parseArgs({
  options: {
    'per-second': { type: 'string', default: '500' },
    seconds: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
  },
});

const CONNECTIONS = 60;
const ANSWER_MS = 30_000;
const GIVE_UP_MS = 60_000;
/**
 * A client that has stood still for so long while the service went may have written into a connection that was closed
 * meanwhile: what it has lost then says nothing about the service, and the scene is played again.
 */
const STOOD_STILL_MS = 150;
const MOST_TRIES = 5;

interface Scene {
  readonly settings: Readonly<Record<'WORKERS' | 'AUDIT_MODE', string>>;
  readonly ledger: string;
  readonly statuses: readonly (readonly [status: number, count: number])[];
  readonly exit: Exit;
  readonly differences: Differences;
  readonly differing: number;
  /** The longest time for which the client has done nothing, from the signal to the exit. */
  readonly stillMs: number;
}

const load = loadavg()[0] ?? 0;
const scenes: Scene[] = [];
for (const WORKERS of ['0', '2']) {
  for (const AUDIT_MODE of ['batched', 'strict']) scenes.push(await telling({ WORKERS, AUDIT_MODE }));
}
if (values.json) console.log(JSON.stringify({ machine: machine(availableParallelism(), load), scenes }));
else report();
process.exit(scenes.every(({ exit, differing }) => exit.code === 0 && differing === 0) ? 0 : 1);

async function telling(settings: Scene['settings']): Promise<Scene> {
  for (let tries = 1; ; tries += 1) {
    const played = await scene(settings);
    const { lost, ...others } = played.differences;
    const onlyLost = lost.length > 0 && Object.values(others).flat().length === 0;
    if (!onlyLost || played.stillMs < STOOD_STILL_MS || tries === MOST_TRIES) return played;
    console.error(`The client stood still for ${played.stillMs.toFixed(0)} ms: once more`);
  }
}

async function scene(settings: Scene['settings']): Promise<Scene> {
  const directory = mkdtempSync(join(tmpdir(), 'reconcile-'));
  const [auditLog, dispatched] = [join(directory, 'audit.ndjson'), join(directory, 'dispatched')];
  writeFileSync(dispatched, '');
  try {
    const service = await ServerProcess.ours('bench/servers/orders-app.mjs', {
      ...settings,
      AUDIT_LOG: auditLog,
      DISPATCHED: dispatched,
    });
    const client = LedgerClient.start({
      port: service.port,
      connections: CONNECTIONS,
      method: 'POST',
      path: (number) => `/orders/${number}`,
      perSecond: Number(values['per-second']),
      dropRefused: true,
      timeoutMs: ANSWER_MS,
    });
    await delay(Number(values.seconds) * 1000);
    // Only while the service goes can standing still cost a request.
    const loopDelay = monitorEventLoopDelay({ resolution: 10 });
    loopDelay.enable();
    service.signal('SIGTERM');
    const exit = await ended(service);
    loopDelay.disable();
    const ledger = await client.stop();
    const differences = compare(
      ledger,
      requestsIn(auditLog),
      readFileSync(dispatched, 'utf8').split('\n').filter(Boolean).map(Number),
      (path) => Number(path.split('/').at(-1)),
    );
    const differing = Object.values(differences).flat().length;
    if (differing > 0) {
      console.error(settings, differences);
      for (const { number, lost, sentMs, endedMs = Number.NaN } of ledger.entries) {
        if (lost !== undefined)
          console.error(
            `${number} ${lost}: sent ${(sentMs - service.leftMs).toFixed(1)} ms after the exit, over ${(endedMs - sentMs).toFixed(1)} ms later`,
          );
      }
    }
    const stillMs = loopDelay.max / 1e6;
    return {
      settings,
      ledger: String(ledger),
      statuses: [...ledger.statuses],
      exit,
      differences,
      differing,
      stillMs,
    };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Its exit. One that does not leave is killed. */
async function ended(service: ServerProcess): Promise<Exit> {
  const timer = setTimeout(() => service.signal('SIGKILL'), GIVE_UP_MS);
  return service.exited.finally(() => clearTimeout(timer));
}

function report(): void {
  console.log(
    `\n## Three accounts of one load: ${values['per-second']} orders a second, a stop in the middle\n`,
  );
  console.log(`${machine(availableParallelism(), load)}\n`);
  console.log(
    table(
      [
        ...['', '200', '503', 'lost', 'lost, yet dispatched', 'not on record', 'not answered'],
        ...['refused, yet dispatched', 'twice', 'exit'],
      ],
      scenes.map(({ settings, statuses, differences, exit }) => {
        const count = (status: number): string => String(new Map(statuses).get(status) ?? 0);
        const lists = [
          ...[differences.lost, differences.lostButDispatched, differences.answeredNotRecorded],
          ...[differences.recordedNotAnswered, differences.refusedButDispatched, differences.dispatchedTwice],
        ];
        return [
          `WORKERS=${settings.WORKERS}, ${settings.AUDIT_MODE}`,
          ...[count(200), count(503), ...lists.map(({ length }) => String(length)), String(exit.code)],
        ];
      }),
    ),
  );
}
