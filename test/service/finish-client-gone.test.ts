import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a client that goes away while the service stops does not hold it up', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const polite = (await RawClient.open(service.port)).get('/signals');
  const rude = (await RawClient.open(service.port)).get('/hold/a').get('/hold/b');
  await polite.received(1);
  await service.line('holding b');
  await service.stop();
  await service.line('INFO: stopping: the service is stopping');

  rude.socket.resetAndDestroy();
  polite.socket.end();
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(service.output, 'INFO: signal: the client is gone');
  t.match(service.report(), { in_flight_at_lock: 3, completed: 0, aborted: 3, cut: [] });
});
