import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a slow handler runs to its end, its answer closes, and then the service leaves', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const names = ['a', 'b', 'c'];
  const clients: RawClient[] = [];
  for (const name of names) {
    clients.push((await RawClient.open(service.port)).get(`/hold/${name}`));
    await service.line(`holding ${name}`);
  }
  await service.stop();
  await service.line('INFO: Waiting up to 60s for 3 in-flight requests to complete...');

  for (const [index, client] of clients.entries()) {
    service.release(names[index] ?? '');
    const answer = await client.response();
    t.equal(answer.status, 200);
    t.equal(answer.headers.connection, 'close');
    t.strictSame(JSON.parse(answer.body), { held: names[index] });
    t.equal(await client.ended, 'fin');
  }

  t.strictSame(await service.exited, { code: 0, signal: null });
  t.strictSame(
    service.lines.slice(service.lines.findIndex((line) => line.includes('Received signal'))),
    [
      'INFO: Received signal 15. Initiating graceful shutdown (fail-safe)...',
      'WARNING: Service state: STOPPING - Rejecting new requests (fail-safe mode). 3 in-flight requests remaining.',
      'INFO: Waiting up to 60s for 3 in-flight requests to complete...',
      'INFO: Service state: STOPPED - All requests completed gracefully',
      'INFO: Service shutdown complete',
    ],
    'the lines that people search for, in their order',
  );
  t.match(service.report(), { in_flight_at_lock: 3, completed: 3, aborted: 0, cut: [], exit_code: 0 });
});
