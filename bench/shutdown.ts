/**
 * What a stop does to clients, counted. Four scenes, each repeated, each with a service of its own:
 *
 *   autocannon    50 connections of autocannon and an open loop of the ledger client, a slow request in flight.
 *                 autocannon makes the load and counts 503s; it cannot account for losses, the ledger does.
 *   slow          20 connections in a closed loop, a slow request in flight: the times are taken here.
 *   closed loop   50 connections that reconnect as they are told, nothing slow in flight.
 *   idle          2,000 connections that were used once and wait.
 *
 * Exits with 1 when a request was lost, an answer was wrong, or the service did not exit with 0.
 */
import { availableParallelism, loadavg } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import autocannon from 'autocannon';
import { machine, medianAndSpread, sum, table } from '../test/support/figures.ts';
import type { Entry, Ledger } from '../test/support/ledger.ts';
import { LedgerClient } from '../test/support/ledger-client.ts';
import { RawClient, type RawResponse } from '../test/support/raw-client.ts';
import { type Exit, ServerProcess } from '../test/support/server-process.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
  },
});
const runs = Number(values.runs);

const APP = 'bench/servers/app.mjs';
const ANSWER = '{"hello":"world"}';
const REFUSAL =
  '{"error":"Service Unavailable","message":"Service is shutting down. Please try again later.",' +
  '"service_state":"stopping","fail_safe":true}';
/** How long the slow request keeps the drain open after the signal. */
const SLOW_MS = 1_000;
/** Load before the signal, so that it comes in the middle. */
const BEFORE_MS = 500;
const IDLE_CONNECTIONS = 2_000;
/** Connections opened at a time, below the backlog of any listening socket. */
const OPENED_AT_ONCE = 100;
const GIVE_UP_MS = 20_000;

/** What one run of a scene has shown. What a scene does not measure is left out. */
interface Run {
  readonly exitCode: Exit['code'];
  readonly sent: number;
  readonly lost: number;
  /** Answers that were neither the handler's nor the refusal, word for word. */
  readonly wrong: number;
  readonly refusals: number;
  /** From the signal to the first 503. */
  readonly firstRefusalMs?: number;
  /** From the last in-flight answer to the exit. */
  readonly leaveMs?: number;
  /** From the signal to the exit. */
  readonly exitMs?: number;
  /** 503s that autocannon has counted. */
  readonly autocannonRefusals?: number;
}

/** Holds answers against what they have to be. */
class Check {
  wrong = 0;
  readonly see = ({ status, headers, body }: RawResponse): void => {
    const right =
      status === 200
        ? body === ANSWER
        : status === 503 &&
          body === REFUSAL &&
          headers.connection === 'close' &&
          /^\d+$/.test(headers['retry-after'] ?? '');
    if (!right) this.wrong += 1;
  };
}

const load = loadavg()[0] ?? 0;
const scenes: Readonly<Record<string, () => Promise<Run>>> = {
  autocannon: underAutocannon,
  slow: withSlowRequest,
  'closed loop': closedLoop,
  idle: withIdleConnections,
};
const results = new Map<string, Run[]>();
for (const [name, scene] of Object.entries(scenes)) {
  results.set(name, []);
  for (let run = 0; run < runs; run += 1) results.get(name)?.push(await scene());
}
report();
const failed = [...results.values()]
  .flat()
  .some(({ lost, wrong, exitCode }) => lost + wrong + (exitCode ?? 1) > 0);
process.exit(failed ? 1 : 0);

async function underAutocannon(): Promise<Run> {
  const service = await ServerProcess.ours(APP);
  const slow = await slowRequest(service);
  const gun = fire(service.port);
  const check = new Check();
  const client = LedgerClient.start({
    port: service.port,
    connections: 10,
    perSecond: 300,
    onAnswer: check.see,
  });
  await delay(BEFORE_MS);
  const { exit } = terminate(service);
  const { code } = await exit;
  gun.stop();
  const [shot, ledger, last] = await Promise.all([gun.result, client.stop(), slow.answered]);
  const run = accountOf(ledger, check, last);
  return {
    ...run,
    wrong: run.wrong + shot.mismatches,
    exitCode: code,
    autocannonRefusals: shot.statusCodeStats?.['503']?.count ?? 0,
  };
}

/** autocannon, until it is stopped. An answer that is neither of the two that are right is a mismatch. */
function fire(port: number): { stop: () => void; result: Promise<autocannon.Result> } {
  const options = {
    url: `http://127.0.0.1:${port}/`,
    connections: 50,
    duration: GIVE_UP_MS / 1000,
    sampleInt: 100,
    verifyBody: (body?: string | Buffer) => body === ANSWER || body === REFUSAL,
  };
  let stop = (): void => undefined;
  const result = new Promise<autocannon.Result>((resolve, reject) => {
    const gun = autocannon(options, (error: unknown, result) => (error ? reject(error) : resolve(result)));
    stop = () => gun.stop();
  });
  return { stop, result };
}

async function withSlowRequest(): Promise<Run> {
  const service = await ServerProcess.ours(APP);
  const slow = await slowRequest(service);
  const check = new Check();
  const client = LedgerClient.start({ port: service.port, connections: 20, onAnswer: check.see });
  await delay(BEFORE_MS);
  const { signalMs, exit } = terminate(service);
  const { code, atMs } = await exit;
  const [ledger, last] = await Promise.all([client.stop(), slow.answered]);
  return {
    ...accountOf(ledger, check, last),
    exitCode: code,
    firstRefusalMs: (ledger.first(503)?.endedMs ?? Number.NaN) - signalMs,
    leaveMs: atMs - (last.endedMs ?? Number.NaN),
  };
}

async function closedLoop(): Promise<Run> {
  const service = await ServerProcess.ours(APP);
  const check = new Check();
  const client = LedgerClient.start({ port: service.port, connections: 50, onAnswer: check.see });
  await delay(BEFORE_MS);
  const { signalMs, exit } = terminate(service);
  const { code, atMs } = await exit;
  const ledger = await client.stop();
  return { ...accountOf(ledger, check), exitCode: code, exitMs: atMs - signalMs };
}

async function withIdleConnections(): Promise<Run> {
  const service = await ServerProcess.ours(APP);
  const clients: RawClient[] = [];
  while (clients.length < IDLE_CONNECTIONS) {
    clients.push(
      ...(await Promise.all(Array.from({ length: OPENED_AT_ONCE }, () => usedOnce(service.port)))),
    );
  }
  const { signalMs, exit } = terminate(service);
  const { code, atMs } = await exit;
  for (const client of clients) client.destroy();
  return { exitCode: code, sent: clients.length, lost: 0, wrong: 0, refusals: 0, exitMs: atMs - signalMs };
}

function accountOf(ledger: Ledger, check: Check, slow?: Entry): Omit<Run, 'exitCode'> {
  const slowWrong = slow !== undefined && slow.status !== 200 ? 1 : 0;
  if (ledger.lost > 0) console.error(`lost: ${ledger}`);
  return {
    sent: ledger.sent + (slow === undefined ? 0 : 1),
    lost: ledger.lost + (slow?.lost === undefined ? 0 : 1),
    wrong: check.wrong + slowWrong,
    refusals: ledger.answers(503).length,
  };
}

/** Puts a request in flight that will end about `SLOW_MS` after the signal. */
async function slowRequest(service: ServerProcess): Promise<{ answered: Promise<Entry> }> {
  const path = `/slow/${BEFORE_MS + SLOW_MS}`;
  const answered = LedgerClient.once({ port: service.port, path, timeoutMs: GIVE_UP_MS });
  await service.line('A slow request is in flight');
  return { answered };
}

interface Stop {
  readonly signalMs: number;
  readonly exit: Promise<Exit & { readonly atMs: number }>;
}

/** SIGTERM, and a SIGKILL for one that does not leave. */
function terminate(service: ServerProcess): Stop {
  const signalMs = performance.now();
  service.signal('SIGTERM');
  const timer = setTimeout(() => service.signal('SIGKILL'), GIVE_UP_MS);
  const exit = service.exited.then((exit) => ({ ...exit, atMs: service.leftMs }));
  return { signalMs, exit: exit.finally(() => clearTimeout(timer)) };
}

/** A connection on which one request was answered. */
async function usedOnce(port: number): Promise<RawClient> {
  const client = new RawClient(port).get('/');
  await client.response();
  return client;
}

function report(): void {
  if (values.json) {
    console.log(JSON.stringify({ node: process.version, runs, load, scenes: Object.fromEntries(results) }));
    return;
  }
  console.log(`\n## A stop, seen by its clients: ${runs} runs of each scene\n`);
  console.log(`${machine(availableParallelism(), load)} Milliseconds: median (least to most).\n`);
  const rows = [...results].map(([name, own]) => {
    const times = (key: 'firstRefusalMs' | 'leaveMs' | 'exitMs'): string =>
      medianAndSpread(
        own.flatMap((run) => run[key] ?? []),
        1,
      );
    const count = (key: 'sent' | 'lost' | 'wrong' | 'refusals' | 'autocannonRefusals'): string =>
      String(sum(own.map((run) => run[key] ?? 0)));
    const codes = [...new Set(own.map(({ exitCode }) => exitCode))].join(', ');
    return [
      name,
      ...[count('sent'), count('refusals'), count('autocannonRefusals'), count('lost'), count('wrong')],
      ...[times('firstRefusalMs'), times('leaveMs'), times('exitMs'), codes],
    ];
  });
  const header = ['scene', 'sent', '503', '503 at autocannon', 'lost', 'wrong'];
  console.log(
    table(
      [...header, 'first 503 after signal', 'exit after last answer', 'exit after signal', 'exit code'],
      rows,
    ),
  );
}
