import { once } from 'node:events';
import { connect } from 'node:net';
import t from 'tap';
import { probe, SERVICE_ADDRESS } from '../../src/platform/listen.ts';
import { freePort } from '../conformance/subject.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('finding out whether a port is free takes no connection on it', async (t) => {
  const port = await freePort();
  const knocks: Promise<unknown>[] = [];
  let probing = true;
  const probes = (async () => {
    for (let round = 0; round < 20; round += 1) await probe('127.0.0.1', port, SERVICE_ADDRESS);
    probing = false;
  })();
  while (probing) {
    const socket = connect({ port, host: '127.0.0.1' });
    knocks.push(
      once(socket, 'connect').then(
        () => 'connected',
        (error: NodeJS.ErrnoException) => error.code,
      ),
    );
    await new Promise((resolve) => setImmediate(resolve));
  }
  await probes;
  t.strictSame(new Set(await Promise.all(knocks)), new Set(['ECONNREFUSED']));
});

for (const workers of ['0', '1']) {
  t.test(`who is let in during a start is answered (WORKERS=${workers})`, async (t) => {
    const port = await freePort();
    const service = ServiceProcess.spawn(t, { env: { PORT: String(port), WORKERS: workers } });
    for (let answered = false; !answered; ) {
      const client = await RawClient.open(port).catch(() => undefined);
      if (client === undefined) await new Promise((resolve) => setTimeout(resolve, 1));
      else {
        t.equal((await client.get('/').response()).status, 200);
        answered = true;
        client.destroy();
      }
    }
    service.signal('SIGTERM');
    t.strictSame(await service.exited, { code: 0, signal: null });
  });
}
