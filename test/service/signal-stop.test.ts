import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

for (const [signal, number] of [
  ['SIGTERM', 15],
  ['SIGINT', 2],
] as const) {
  t.test(`${signal} stops the service with exit 0`, async (t) => {
    const service = await ServiceProcess.running(t);
    service.signal(signal);
    t.strictSame(await service.exited, { code: 0, signal: null });
    t.strictSame(
      service.lines.slice(service.lines.findIndex((line) => line.includes('Received'))),
      [
        `INFO: Received signal ${number}. Initiating graceful shutdown (fail-safe)...`,
        'WARNING: Service state: STOPPING - Rejecting new requests (fail-safe mode). 0 in-flight requests remaining.',
        'INFO: Service state: STOPPED - All requests completed gracefully',
        'INFO: Service shutdown complete',
      ],
      'the lines that people search for, in their order',
    );
    t.match(service.report(), { reason: signal, in_flight_at_lock: 0, exit_code: 0 });
  });
}

t.test('a second SIGTERM changes nothing', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  await service.stop();
  service.signal('SIGTERM');
  service.signal('SIGTERM');
  assertRefused(t, await (await RawClient.open(service.port)).get('/').response());
  await drain.finish(t);
  t.equal(service.lines.filter((line) => line.includes('Received signal')).length, 1);
});

t.test('a SIGTERM after a SIGINT, and a SIGINT after a SIGTERM, change nothing either', async (t) => {
  for (const [first, second] of [
    ['SIGINT', 'SIGTERM'],
    ['SIGTERM', 'SIGINT'],
  ] as const) {
    const service = await ServiceProcess.running(t);
    const drain = await holdDrain(service);
    await service.stop(first);
    service.signal(second);
    assertRefused(t, await (await RawClient.open(service.port)).get('/').response());
    await drain.finish(t);
  }
});

t.test('a second SIGINT forces the exit', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const client = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  await service.stop('SIGINT');

  service.signal('SIGINT');
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(service.output, /^WARNING: Cut in-flight request: GET \/hold\/a after/m);
  t.match(service.output, /^ERROR: Force shutdown: In-flight requests did not complete in time$/m);
  t.notMatch(service.output, 'Shutdown timeout', 'it was not the time');
  client.destroy();
});

t.test('a reload while stopping is refused', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  await service.stop();
  service.signal('SIGHUP');
  await service.line('ERROR: Reload refused, generation 1 goes on serving: the service is stopping');
  await drain.finish(t);
});
