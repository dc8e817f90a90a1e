import t, { type Test } from 'tap';
import { holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

const CLIENTS = 50;
const RESTARTS = 3;

/** What became of every request that was written on a connection that the service had accepted. */
interface Ledger {
  served: number;
  refused: number;
  /** Written, and not answered whole. This is what must not be. */
  readonly lost: string[];
}

for (let restart = 1; restart <= RESTARTS; restart += 1) {
  t.test(`under a closed loop a stop loses no request (${restart} of ${RESTARTS})`, async (t) => {
    const service = await ServiceProcess.running(t);
    const load = hammer(service.port);
    await load.until(({ served }) => served >= CLIENTS * 10);

    service.signal('SIGTERM');
    t.strictSame(await service.exited, { code: 0, signal: null });
    assertNothingLost(t, service, await load.ended);
  });

  // Each refusal closes its connection, so now the clients open new ones all the time, up to the very end.
  t.test(`nor does the end of a drain that all have knocked at (${restart} of ${RESTARTS})`, async (t) => {
    const service = await ServiceProcess.running(t);
    const drain = await holdDrain(service);
    const load = hammer(service.port);
    await load.until(({ served }) => served >= CLIENTS * 10);
    await service.stop();
    await load.until(({ refused }) => refused >= CLIENTS * 10);

    await drain.finish(t);
    assertNothingLost(t, service, await load.ended);
  });
}

function assertNothingLost(t: Test, service: ServiceProcess, ledger: Ledger): void {
  t.strictSame(ledger.lost, []);
  t.ok(ledger.refused > 0, 'the lock was met');
  t.equal(service.report().rejected, ledger.refused, 'and each refusal has arrived');
}

interface Load {
  until(reached: (ledger: Ledger) => boolean): Promise<void>;
  /** Resolves when the service cannot be reached any more. */
  readonly ended: Promise<Ledger>;
}

function hammer(port: number): Load {
  const ledger: Ledger = { served: 0, refused: 0, lost: [] };
  const waiting = new Set<() => void>();
  const answered = (): void => {
    for (const look of waiting) look();
  };
  const clients = Array.from({ length: CLIENTS }, () => askOn(port, ledger, answered));
  return {
    until: (reached) =>
      new Promise((resolve) => {
        const look = (): void => {
          if (!reached(ledger)) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
      }),
    ended: Promise.all(clients).then(() => ledger),
  };
}

/** Asks again and again, on one connection as long as it may, until the service cannot be reached any more. */
async function askOn(port: number, ledger: Ledger, answered: () => void): Promise<void> {
  for (;;) {
    let client: RawClient;
    try {
      client = await RawClient.open(port);
    } catch {
      return;
    }
    for (let open = true; open; ) {
      try {
        const { status, headers } = await client.get('/').response();
        if (status === 200) ledger.served += 1;
        else ledger.refused += 1;
        answered();
        open = headers.connection !== 'close';
      } catch (error) {
        ledger.lost.push(String(error));
        open = false;
      }
    }
    client.destroy();
  }
}
