import { readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import t, { type Test } from 'tap';
import { installExample } from '../support/documents.ts';
import { Postgres } from '../support/postgres.ts';
import { ROOT } from '../support/root.ts';
import { tempDir } from '../support/service-process.ts';
import { type Played, play, SCENES, type SceneName, serve } from '../support/transfer-rounds.ts';
import type { Disagreements } from '../support/transfers.ts';

/** Each scene has two variants. */
const ROUNDS = [0, 1];

const postgres = await Postgres.start();
const second = await serve(postgres, 'second');
t.teardown(async () => {
  await second.kill();
  await postgres.end();
});

/** Where the accounts differ. */
function differing({ disagreements }: Played): string[] {
  return Object.entries(disagreements).flatMap(([name, keys]) => (keys.length > 0 ? [name] : []));
}

for (const name of Object.keys(SCENES) as SceneName[]) {
  t.test(`${name}: ledger, audit log and tables agree on every transfer`, async (t) => {
    for (const round of ROUNDS) {
      const played = await play(name, round, postgres, second);
      const { unanswered, cut, refused, ledger, exit } = played;
      t.strictSame(differing(played), [], JSON.stringify(played.disagreements));
      t.strictSame(played.unsettled, [], 'asked for once more, each is made exactly once');
      t.ok(played.isAsExpected, `it ends as it should: ${exit.code}`);
      // Otherwise the round has shown nothing.
      if (name === 'deadline') {
        t.ok(cut > 0 && unanswered.byId > 0, 'requests are cut, and their transaction ids decide');
        const isCommitted = round === 1;
        t.ok((isCommitted ? unanswered.committed : unanswered.rolledBack) > 0);
      } else if (name === 'kill -9') t.ok(unanswered.committed + unanswered.rolledBack > 0, `${ledger}`);
      else t.ok(refused > 0, `${ledger}`);
    }
  });
}

/** A copy of the example in which this line is another one. @returns its path from the checkout */
function mutant(t: Test, line: string, otherwise: string): string {
  const dir = tempDir(t);
  installExample('postgres', dir);
  const file = join(dir, 'app.mjs');
  const source = readFileSync(file, 'utf8');
  t.equal(source.split(line).length, 2, `once in the example: ${line}`);
  writeFileSync(
    file,
    source.replace(line, () => otherwise),
  );
  return relative(ROOT, file);
}

interface Mutant {
  readonly line: string;
  readonly otherwise: string;
  readonly found: keyof Disagreements | 'unsettled';
  /** Where it shows; default: SIGTERM. */
  readonly scene?: readonly [SceneName, round: number];
}

const SIGTERM = ['SIGTERM', 0] as const;
/** Of nine transfers one has this amount. */
const SOME = 'amount === 9';

const MUTANTS: Readonly<Record<string, Mutant>> = {
  'a 200 before COMMIT': {
    line: '    return begun;\n',
    otherwise: `    sendJson(response, 200, begun); if (begun.${SOME}) throw new Error('COMMIT fails'); return begun;\n`,
    found: 'answeredNotCommitted',
  },
  'a 503 after COMMIT': {
    line: '  sendJson(response, 200, transfer);\n}\n\n/** The same',
    otherwise: `  if (transfer.${SOME}) throw new HttpError(503, 'too late'); sendJson(response, 200, transfer);\n}\n/**`,
    found: 'refusedButCommitted',
  },
  'money that is lost': { line: 'ELSE $3 END', otherwise: 'ELSE $3 - 1 END', found: 'money' },
  'an amount of its own': {
    line: 'order.payee, order.amount]',
    otherwise: 'order.payee, order.amount + 1]',
    found: 'altered',
  },
  'another transaction on record': {
    line: 'transfer: begun.key, xid: begun.xid',
    otherwise: "transfer: begun.key, xid: '3'",
    found: 'answeredNotRecorded',
  },
  'a transfer on record that is not made': {
    line: '    context.audit({ transfer: begun.key, xid: begun.xid });\n',
    otherwise: "    context.audit({ transfer: begun.key + ':0', xid: begun.xid });\n",
    found: 'recordedNotCommitted',
  },
  'a transaction that the record does not decide': {
    line: 'transfer: begun.key, xid: begun.xid',
    otherwise: "transfer: begun.key, xid: '3'",
    scene: ['deadline', 0],
    found: 'undecided',
  },
  'a repeated transfer that is made again': {
    line: 'return made(query, order, context);',
    otherwise: `{
      await query('UPDATE accounts SET balance = balance + $2 WHERE id = $1', [order.payee, order.amount]);
      return made(query, order, context);
    }`,
    scene: ['deadline', 1],
    found: 'unsettled',
  },
};

// Mutants leave traces in the tables, so they have a database of their own.
t.test('the accounts show what is wrong', async (t) => {
  const other = await Postgres.start();
  t.teardown(() => other.end());
  for (const [what, { line, otherwise, scene, found }] of Object.entries(MUTANTS)) {
    await t.test(what, async (t) => {
      const file = mutant(t, line, otherwise);
      const second = await serve(other, 'second', {}, file);
      t.teardown(() => second.kill());
      await other.query('TRUNCATE transfers');
      await other.query('UPDATE accounts SET balance = 1000000');
      const { disagreements, unsettled } = await play(...(scene ?? SIGTERM), other, second, file);
      const all = { ...disagreements, unsettled };
      t.ok(all[found].length > 0, `${found}: ${JSON.stringify(all).slice(0, 500)}`);
    });
  }
});
