import t from 'tap';
import { RawClient } from './support/raw-client.ts';
import { ServiceProcess } from './support/service-process.ts';

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
    const ledger: Ledger = { served: 0, refused: 0, lost: [] };
    let warm: () => void = () => undefined;
    const warmed = new Promise<void>((resolve) => {
      warm = resolve;
    });
    const clients = Array.from({ length: CLIENTS }, () =>
      hammer(service.port, ledger, () => {
        if (ledger.served === CLIENTS * 20) warm();
      }),
    );
    await warmed;

    service.signal('SIGTERM');
    t.strictSame(await service.exited, { code: 0, signal: null });
    await Promise.all(clients);
    t.strictSame(ledger.lost, []);
    t.ok(ledger.refused > 0, 'the lock was met');
    t.equal(service.report().rejected, ledger.refused, 'and each refusal has arrived');
  });
}

/** Asks again and again, on one connection as long as it may, until the service cannot be reached any more. */
async function hammer(port: number, ledger: Ledger, served: () => void): Promise<void> {
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
        if (status === 200) served();
        open = headers.connection !== 'close';
      } catch (error) {
        ledger.lost.push(String(error));
        open = false;
      }
    }
    client.destroy();
  }
}
