import { spawnSync } from 'node:child_process';
import t from 'tap';
import { compare, type Recorded } from '../support/accounts.ts';
import { type Entry, Ledger } from '../support/ledger.ts';
import { ROOT } from '../support/root.ts';

const LIMIT_MS = 480_000;
const NONE = {
  lost: [],
  answeredNotRecorded: [],
  recordedNotAnswered: [],
  refusedButDispatched: [],
  lostButDispatched: [],
  dispatchedTwice: [],
};

t.test(
  'what clients were told, what is on record and what was done are one',
  { timeout: LIMIT_MS },
  async (t) => {
    const args = ['--import', 'tsx', 'bench/reconcile.ts', '--seconds', '1', '--per-second', '400', '--json'];
    const { stdout, stderr } = spawnSync(process.execPath, args, {
      cwd: ROOT,
      encoding: 'utf8',
      timeout: LIMIT_MS,
    });
    t.comment(stderr);
    const { scenes } = JSON.parse(stdout) as { scenes: { differences: typeof NONE; ledger: string }[] };
    t.equal(scenes.length, 4);
    for (const { differences, ledger } of scenes) {
      t.strictSame(differences, NONE);
      t.match(ledger, /\d+ x 200, \d+ x 503/, 'the stop came in the middle of it');
    }
  },
);

t.test('each way in which the accounts can differ is found', async (t) => {
  const agreeing = { statuses: [200, 200, 503], records: [0, 1], dispatched: [0, 1] };
  const found = (change: Partial<typeof agreeing>): object => {
    const { statuses, records, dispatched } = { ...agreeing, ...change };
    const ledger = new Ledger();
    ledger.entries.push(...statuses.map(entry));
    return compare(ledger, records.map(recorded), dispatched, (path) => Number(path.slice(1)));
  };
  t.strictSame(found({}), NONE);
  t.strictSame(found({ statuses: [200, 200, 503, 0] }), { ...NONE, lost: [3] });
  t.match(found({ statuses: [200, 200, 503, 0], dispatched: [0, 1, 3] }), {
    lost: [3],
    lostButDispatched: [3],
  });
  t.strictSame(found({ records: [1] }), { ...NONE, answeredNotRecorded: [0] });
  t.strictSame(found({ records: [0, 1, 4] }), { ...NONE, recordedNotAnswered: [4] });
  t.strictSame(found({ dispatched: [0, 1, 2] }), { ...NONE, refusedButDispatched: [2] });
  t.match(found({ records: [0, 1, 2] }), { refusedButDispatched: [2] });
  t.strictSame(found({ dispatched: [0, 1, 1] }), { ...NONE, dispatchedTwice: [1] });
});

/** @param status 0 for a request that was lost */
function entry(status: number, number: number): Entry {
  const end = status === 0 ? { status: undefined, lost: 'fin' } : { status, lost: undefined };
  return { number, dueMs: 0, sentMs: 0, endedMs: 1, ...end };
}

function recorded(number: number): Recorded {
  return { path: `/${number}`, status: 200, outcome: 'completed' };
}
