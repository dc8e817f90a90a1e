import type { Recorded } from './accounts.ts';
import type { Entry, Ledger } from './ledger.ts';
import { type Asked, LedgerClient } from './ledger-client.ts';
import type { Postgres } from './postgres.ts';

const ACCOUNTS = 10;
const OPENING_BALANCE = 1_000_000;
const CONNECTIONS = 8;
const ANSWER_MS = 30_000;

interface Order {
  readonly payer: number;
  readonly payee: number;
  readonly amount: number;
}

/** A row of the table. */
interface Row extends Order {
  readonly key: string;
  readonly xid: string;
}

/** What the service has put on record of one transfer. */
type TransferRecord = Recorded & { readonly fields?: { readonly transfer?: string; readonly xid?: string } };

/** What is held against each other of one run. */
export interface Accounts {
  /** Begins the key of each of its transfers. */
  readonly run: string;
  readonly ledger: Ledger;
  readonly records: readonly Recorded[];
  readonly postgres: Postgres;
  /**
   * Whether the database has crashed meanwhile. Then a transaction id that was read before may belong to another
   * transaction: what never reached the disk is given out again. The table still decides.
   */
  readonly crashed?: boolean;
}

/** Transfers on which the accounts differ. All empty: they agree. */
export interface Disagreements {
  /** Answered with 200, and not in the table. */
  readonly answeredNotCommitted: readonly string[];
  /** Answered with 503, and yet in the table. */
  readonly refusedButCommitted: readonly string[];
  /** Answered with 200, and the audit log does not have it with the transaction that the table has. */
  readonly answeredNotRecorded: readonly string[];
  /** Recorded as completed with 200, and not in the table. */
  readonly recordedNotCommitted: readonly string[];
  /** Without an answer that says what became of it, and the transaction's fate is not what the table says. */
  readonly undecided: readonly string[];
  /** Answered with what no transfer of the load should get. */
  readonly unexpected: readonly string[];
  /** In the table, and not as it was asked for. */
  readonly altered: readonly string[];
  /** Accounts whose balance is not what the table's transfers make of it. */
  readonly money: readonly string[];
}

export interface Reconciled {
  readonly disagreements: Disagreements;
  readonly committed: number;
  /** Answered with 503. */
  readonly refused: number;
  /** Lost or answered with 502, by what became of them, and how many of them the audited transaction id decided. */
  readonly unanswered: { readonly committed: number; readonly rolledBack: number; readonly byId: number };
}

/** What is asked for by one number of a run. Every account pays and is paid. */
export function transferOf(number: number): Order {
  const payer = number % ACCOUNTS;
  const payee = (payer + 1 + (Math.floor(number / ACCOUNTS) % (ACCOUNTS - 1))) % ACCOUNTS;
  return { payer: payer + 1, payee: payee + 1, amount: 1 + (number % 9) };
}

function asked(run: string, number: number): Asked {
  const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': `${run}:${number}` };
  return { method: 'POST', path: '/transfers', headers, body: JSON.stringify(transferOf(number)) };
}

/** Transfers in a closed loop, each with a key of its own. None is sent twice. */
export function startTransfers(port: number, run: string, connections = CONNECTIONS): LedgerClient {
  const each = (number: number): Asked => asked(run, number);
  return LedgerClient.start({ port, connections, each, timeoutMs: ANSWER_MS });
}

/**
 * Asks once more, with the same key, for each transfer that was not answered with 200, as a client should.
 * @returns those that still have no 200
 */
export async function repeat(
  port: number,
  { run, ledger }: Pick<Accounts, 'run' | 'ledger'>,
): Promise<string[]> {
  const left = ledger.entries.filter(({ status }) => status !== 200).map(({ number }) => number);
  const failed: string[] = [];
  const one = async (): Promise<void> => {
    for (let number = left.pop(); number !== undefined; number = left.pop()) {
      const { method, path, headers, body } = asked(run, number) as Required<Asked>;
      const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, body: String(body) });
      if (answer.status !== 200) failed.push(`${run}:${number}: ${answer.status} ${await answer.text()}`);
      else await answer.body?.cancel();
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, one));
  return failed;
}

/**
 * Holds the clients' ledger, the audit log and the tables against each other. The process has to be gone, and its
 * sessions too.
 */
export async function reconcile({ run, ledger, records, postgres, crashed }: Accounts): Promise<Reconciled> {
  const keyOf = ({ number }: Entry): string => `${run}:${number}`;
  const rows = await rowsOf(postgres, run);
  const recorded = byTransfer(records);
  const fates = await fatesOf(postgres, [...recorded.values()].flat());
  const answered = ledger.answers(200).map(keyOf);
  const refused = ledger.answers(503).map(keyOf);
  const unanswered = ledger.entries.filter(({ status }) => status === undefined || status === 502).map(keyOf);
  const fateOf = (key: string): string | undefined =>
    recorded.get(key)?.flatMap(({ fields }) => fates.get(fields?.xid ?? '') ?? [])[0];
  const isRecorded = (key: string): boolean =>
    recorded.get(key)?.some((record) => isDone(record) && record.fields?.xid === rows.get(key)?.xid) ?? false;
  const agrees = (key: string): boolean => {
    const fate = fateOf(key);
    if (fate === undefined) return recorded.get(key) === undefined || crashed === true;
    return rows.has(key) ? fate === 'committed' : fate === 'aborted' || crashed === true;
  };
  return {
    disagreements: {
      answeredNotCommitted: answered.filter((key) => !rows.has(key)),
      refusedButCommitted: refused.filter((key) => rows.has(key)),
      answeredNotRecorded: answered.filter((key) => rows.has(key) && !isRecorded(key)),
      recordedNotCommitted: [...recorded]
        .filter(([key, all]) => all.some(isDone) && !rows.has(key))
        .map(([key]) => key),
      undecided: unanswered.filter((key) => !agrees(key)),
      unexpected: ledger.entries
        .filter(({ status }) => status !== undefined && ![200, 502, 503].includes(status))
        .map((entry) => `${keyOf(entry)}: ${entry.status}`),
      altered: [...rows.values()].filter((row) => !isAsAsked(row, ledger.sent)).map(({ key }) => key),
      money: await wrongBalances(postgres),
    },
    committed: rows.size,
    refused: refused.length,
    unanswered: {
      committed: unanswered.filter((key) => rows.has(key)).length,
      rolledBack: unanswered.filter((key) => !rows.has(key)).length,
      byId: unanswered.filter((key) => fateOf(key) !== undefined).length,
    },
  };
}

/** Once all has been repeated: each transfer is in the table, as it was asked for, and the money is right. */
export async function settled({ run, ledger, postgres }: Accounts): Promise<string[]> {
  const rows = await rowsOf(postgres, run);
  const missing = ledger.entries.filter(({ number }) => !rows.has(`${run}:${number}`));
  const altered = [...rows.values()].filter((row) => !isAsAsked(row, ledger.sent));
  return [
    ...missing.map(({ number }) => `${run}:${number} is missing`),
    ...altered.map(({ key }) => `${key} was not asked for`),
    ...(await wrongBalances(postgres)),
  ];
}

async function rowsOf(postgres: Postgres, run: string): Promise<Map<string, Row>> {
  const rows = await postgres.query<Row>(
    'SELECT key, payer, payee, amount, xid::text FROM transfers WHERE starts_with(key, $1)',
    [`${run}:`],
  );
  return new Map(rows.map((row) => [row.key, row]));
}

function byTransfer(records: readonly TransferRecord[]): Map<string, TransferRecord[]> {
  const all = new Map<string, TransferRecord[]>();
  for (const record of records) {
    const key = record.fields?.transfer;
    if (key !== undefined) all.set(key, [...(all.get(key) ?? []), record]);
  }
  return all;
}

function isDone({ status, outcome }: Recorded): boolean {
  return status === 200 && outcome === 'completed';
}

/** What became of each transaction on record. An id that the database does not know yet has no fate. */
async function fatesOf(
  postgres: Postgres,
  records: readonly TransferRecord[],
): Promise<ReadonlyMap<string, string>> {
  const ids = records.flatMap(({ fields }) => fields?.xid ?? []);
  const rows = await postgres.query<{ xid: string; fate: string }>(
    `SELECT xid, pg_xact_status(xid::xid8) AS fate FROM unnest($1::text[]) AS xid
     WHERE xid::xid8 < pg_snapshot_xmax(pg_current_snapshot())`,
    [ids],
  );
  return new Map(rows.map(({ xid, fate }) => [xid, fate]));
}

function isAsAsked({ key, payer, payee, amount }: Row, sent: number): boolean {
  const number = Number(key.split(':').at(-1));
  const order = transferOf(number);
  return number < sent && payer === order.payer && payee === order.payee && amount === order.amount;
}

async function wrongBalances(postgres: Postgres): Promise<string[]> {
  const rows = await postgres.query<{ id: number; wrong: string }>(
    `SELECT id, balance - $1
       - coalesce((SELECT sum(amount) FROM transfers WHERE payee = id), 0)
       + coalesce((SELECT sum(amount) FROM transfers WHERE payer = id), 0) AS wrong
     FROM accounts`,
    [OPENING_BALANCE],
  );
  return rows
    .filter(({ wrong }) => Number(wrong) !== 0)
    .map(({ id, wrong }) => `account ${id} is off by ${wrong}`);
}
