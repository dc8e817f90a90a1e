import t, { type Test } from 'tap';
import { holdDrain } from '../support/drain.ts';
import type { Ledger } from '../support/ledger.ts';
import { LedgerClient } from '../support/ledger-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

const CLIENTS = 50;
const RESTARTS = 3;

for (let restart = 1; restart <= RESTARTS; restart += 1) {
  t.test(`under a closed loop a stop loses no request (${restart} of ${RESTARTS})`, async (t) => {
    const service = await ServiceProcess.running(t);
    const clients = load(service);
    await clients.answered(200, CLIENTS * 10);

    service.signal('SIGTERM');
    t.strictSame(await service.exited, { code: 0, signal: null });
    assertNothingLost(t, service, await clients.stop());
  });

  // Each refusal closes its connection, so now the clients open new ones all the time, up to the very end.
  t.test(`nor does the end of a drain that all have knocked at (${restart} of ${RESTARTS})`, async (t) => {
    const service = await ServiceProcess.running(t);
    const drain = await holdDrain(service);
    const clients = load(service);
    await clients.answered(200, CLIENTS * 10);
    await service.stop();
    await clients.answered(503, CLIENTS * 10);

    await drain.finish(t);
    assertNothingLost(t, service, await clients.stop());
  });
}

/** Each client asks again and again, on one connection as long as it may. */
function load({ port }: ServiceProcess): LedgerClient {
  // On a machine that does much else an answer may take its time; a lost one never comes.
  return LedgerClient.start({ port, connections: CLIENTS, timeoutMs: 60_000 });
}

function assertNothingLost(t: Test, service: ServiceProcess, ledger: Ledger): void {
  t.equal(ledger.lost, 0, `${ledger}`);
  t.strictSame([...ledger.statuses.keys()].sort(), [200, 503], 'the lock was met');
  t.equal(service.report().rejected, ledger.answers(503).length, 'and each refusal has arrived');
}
