import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { requestsIn } from './accounts.ts';
import type { Ledger } from './ledger.ts';
import type { LedgerClient } from './ledger-client.ts';
import type { Postgres } from './postgres.ts';
import { type Exit, ServerProcess } from './server-process.ts';
import { type Reconciled, reconcile, repeat, settled, startTransfers } from './transfers.ts';

const TOKEN = 'the-token-of-the-administrator';
/** Transfers that are made before a service is stopped, and after what it has to survive. */
const WARM = 100;
const GIVE_UP_MS = 60_000;

interface Scene {
  readonly env?: (round: number) => Readonly<Record<string, string>>;
  /** How it ends. */
  readonly exit: (round: number) => Exit['code'];
  readonly crashes?: (round: number) => boolean;
  /** Ends the service, or makes it end. */
  act(service: ServerProcess, load: LedgerClient, postgres: Postgres, round: number): Promise<void>;
}

const isOdd = (round: number): boolean => round % 2 === 1;
const workers = (round: number): Record<string, string> => ({ WORKERS: isOdd(round) ? '1' : '0' });

/** Every way in which a service ends while it moves money, each in two variants that alternate. */
export const SCENES = {
  /** Alone, and with a worker. */
  SIGTERM: {
    env: workers,
    exit: () => 0,
    async act(service) {
      service.signal('SIGTERM');
    },
  },
  /** While statements wait for a lock, and while COMMIT waits for a replica that does not come. */
  deadline: {
    env: () => ({ SHUTDOWN_TIMEOUT: '0.5' }),
    exit: () => 1,
    async act(service, _load, postgres, round) {
      const release = await (isOdd(round) ? holdCommits : holdLock)(service.name, postgres);
      service.signal('SIGTERM');
      await service.exited;
      await release();
    },
  },
  /** Alone, and with a worker. */
  emergency: {
    env: workers,
    exit: () => 0,
    async act(service) {
      const headers = { Authorization: `Bearer ${TOKEN}` };
      const answer = await service.operator('/admin/emergency-shutdown', { method: 'POST', headers });
      if (answer.status !== 200) throw new Error(`emergency: ${answer.status} ${await answer.text()}`);
    },
  },
  /** The whole service, and its worker alone, which is replaced. */
  'kill -9': {
    env: workers,
    exit: (round) => (isOdd(round) ? 0 : null),
    async act(service, load, _postgres, round) {
      if (!isOdd(round)) return service.signal('SIGKILL');
      const { workers } = await service.statusWhen(({ workers }) => workers?.length === 1);
      for (const { pid } of workers ?? []) process.kill(pid, 'SIGKILL');
      await load.answered(200, WARM);
      service.signal('SIGTERM');
    },
  },
  /** With two workers, and with one. */
  reload: {
    env: (round) => ({ WORKERS: isOdd(round) ? '1' : '2' }),
    exit: () => 0,
    async act(service, load) {
      service.signal('SIGHUP');
      await service.statusWhen(({ last_reload }) => last_reload?.outcome === 'done');
      await load.answered(200, WARM);
      service.signal('SIGTERM');
    },
  },
  /** In order, and by a crash of it. */
  'database restart': {
    exit: () => 0,
    crashes: isOdd,
    async act(service, load, postgres, round) {
      await postgres.restart(isOdd(round) ? 'immediate' : 'fast');
      await load.answered(200, WARM);
      service.signal('SIGTERM');
    },
  },
} as const satisfies Readonly<Record<string, Scene>>;

export type SceneName = keyof typeof SCENES;

export interface Played extends Reconciled {
  readonly ledger: Ledger;
  readonly exit: Exit;
  readonly isAsExpected: boolean;
  /** Of the requests that the audit log has. */
  readonly cut: number;
  /** From the end of the process until its last session was gone, in ms. */
  readonly lingeredMs: number;
  /** What is wrong once every transfer without a 200 was asked for once more, with the same key. */
  readonly unsettled: readonly string[];
}

/**
 * Plays one round: transfers on 8 connections, the end of the service, the accounts. Then all that was not answered
 * with 200 is asked for once more.
 * @param second another service on the same database, for what is asked once more
 * @param app in the checkout
 */
export async function play(
  scene: SceneName,
  round: number,
  postgres: Postgres,
  second: ServerProcess,
  app?: string,
): Promise<Played> {
  const { env, exit: expected, crashes, act }: Scene = SCENES[scene];
  const run = `${scene.replaceAll(' ', '-')}-${round}`;
  const dir = mkdtempSync(join(tmpdir(), 'transfers-'));
  const auditLog = join(dir, 'audit.ndjson');
  let load: LedgerClient | undefined;
  let service: ServerProcess | undefined;
  try {
    service = await serve(postgres, run, { ...env?.(round), AUDIT_LOG: auditLog }, app);
    load = startTransfers(service.port, run);
    await load.answered(200, WARM);
    await act(service, load, postgres, round);
    const exit = await ended(service);
    const ledger = await load.stop();
    await postgres.quiet(run);
    const lingeredMs = performance.now() - service.leftMs;
    const records = requestsIn(auditLog);
    const accounts = { run, ledger, records, postgres, crashed: crashes?.(round) ?? false };
    const reconciled = await reconcile(accounts);
    const failed = await repeat(second.port, accounts);
    return {
      ...reconciled,
      ledger,
      exit,
      isAsExpected: exit.code === expected(round),
      cut: records.filter(({ outcome }) => outcome === 'cut').length,
      lingeredMs,
      unsettled: [...failed, ...(await settled(accounts))],
    };
  } finally {
    await service?.kill();
    await load?.stop();
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The example, on this database. Its sessions have this name. An answer leaves when it is on record. */
export async function serve(
  postgres: Postgres,
  name: string,
  env: Readonly<Record<string, string>> = {},
  app = 'examples/postgres/app.mjs',
): Promise<ServerProcess> {
  const settings = { ...postgres.env, PGAPPNAME: name, AUDIT_MODE: 'strict', ADMIN_TOKEN: TOKEN, ...env };
  return ServerProcess.ours(app, settings, name);
}

async function holdLock(run: string, postgres: Postgres): Promise<() => Promise<void>> {
  const session = await postgres.session();
  await session.query('BEGIN; SELECT FROM accounts WHERE id = 1 FOR NO KEY UPDATE');
  const { rows } = await session.query('SELECT pg_backend_pid() AS pid');
  // Transfers also wait for each other, for a moment.
  await postgres.sessions(run, `${rows[0].pid} = ANY (pg_blocking_pids(pid))`, 1);
  return () => session.end();
}

async function holdCommits(run: string, postgres: Postgres): Promise<() => Promise<void>> {
  await postgres.configure('synchronous_standby_names', 'nobody');
  await postgres.sessions(run, "wait_event = 'SyncRep'", 1);
  return () => postgres.configure('synchronous_standby_names', '');
}

/** One that does not leave is killed. */
async function ended(service: ServerProcess): Promise<Exit> {
  const timer = setTimeout(() => service.signal('SIGKILL'), GIVE_UP_MS);
  return service.exited.finally(() => clearTimeout(timer));
}
