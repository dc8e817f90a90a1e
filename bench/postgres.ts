/**
 * Whether a service that moves money on PostgreSQL can be stopped without a partial state. Transfers are made on 8
 * connections in a closed loop; then the service is stopped, cut at its deadline, stopped by an emergency, killed or
 * reloaded, or its database is restarted. Afterwards the clients' ledger, the audit log and the tables are held against
 * each other for every transfer, and what had no 200 is asked for once more, with the same key.
 *
 * Exits with 1 when the accounts differ on one transfer, when one was not made or made twice in the end, or when the
 * service ended otherwise than it should.
 */
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { machine, medianAndSpread, sum, table } from '../test/support/figures.ts';
import { Postgres } from '../test/support/postgres.ts';
import { type Played, play, SCENES, type SceneName, serve } from '../test/support/transfer-rounds.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    scene: { type: 'string', multiple: true, default: Object.keys(SCENES) },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const names = values.scene as SceneName[];

const load = loadavg()[0] ?? 0;
const postgres = await Postgres.start();
const second = await serve(postgres, 'second');
const scenes: { readonly name: SceneName; readonly played: readonly Played[] }[] = [];
for (const name of names) {
  const played: Played[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const one = await play(name, round, postgres, second);
    const wrong = { ...one.disagreements, unsettled: one.unsettled };
    if (wrongIn(one) > 0) console.error(`${name} ${round}, exit ${one.exit.code}, ${one.ledger}:`, wrong);
    played.push(one);
  }
  scenes.push({ name, played });
}
second.signal('SIGTERM');
await second.exited;
const [server] = await postgres.query<{ server_version: string }>('SHOW server_version');
await postgres.end();
report();
process.exit(scenes.some(({ played }) => played.some((one) => wrongIn(one) > 0)) ? 1 : 0);

function wrongIn({ disagreements, unsettled, isAsExpected }: Played): number {
  return Object.values(disagreements).flat().length + unsettled.length + (isAsExpected ? 0 : 1);
}

function report(): void {
  const lines = scenes.map(({ name, played }) => {
    const total = (pick: (one: Played) => number): number => sum(played.map(pick));
    return {
      name,
      transfers: total(({ ledger }) => ledger.sent),
      answered: total(({ ledger }) => ledger.answers(200).length),
      refused: total(({ refused }) => refused),
      cut: total(({ cut }) => cut),
      rolledBack: total(({ unanswered }) => unanswered.rolledBack),
      committed: total(({ unanswered }) => unanswered.committed),
      byId: total(({ unanswered }) => unanswered.byId),
      differ: total(({ disagreements, unsettled }) =>
        sum([disagreements, unsettled].map((all) => Object.values(all).flat().length)),
      ),
      otherExits: total(({ isAsExpected }) => (isAsExpected ? 0 : 1)),
      lingeredMs: played.map(({ lingeredMs }) => lingeredMs),
    };
  });
  const head = machine(availableParallelism(), load);
  if (values.json) {
    console.log(JSON.stringify({ machine: head, server, rounds, scenes: lines }));
    return;
  }
  console.log(`\n## Transfers on PostgreSQL ${server?.server_version}, ${rounds} rounds each\n\n${head}\n`);
  console.log(
    table(
      [
        ...['', 'transfers', '200', '503', 'cut', 'no answer: rolled back', 'committed', 'decided by id'],
        ...['accounts differ', 'other exits', 'last session gone after, ms'],
      ],
      lines.map((line) => [
        line.name,
        ...[line.transfers, line.answered, line.refused, line.cut].map(String),
        ...[line.rolledBack, line.committed, line.byId, line.differ, line.otherExits].map(String),
        medianAndSpread(line.lingeredMs, 0),
      ]),
    ),
  );
}
