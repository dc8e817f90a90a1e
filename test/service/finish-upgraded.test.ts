import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('an upgraded connection is in flight until it is closed, and learns of the stop', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = (await RawClient.open(service.port)).upgrade('/socket/a');
  t.equal((await client.response()).status, 101);
  client.write('before');
  await client.received('echo before'.length);
  await service.stop();
  await service.line('1 in-flight requests remaining');
  await service.line('upgraded a learned of the stop');

  client.write(' after');
  await client.received('echo beforeecho  after'.length);
  service.release('a');
  t.equal(await client.ended, 'fin');
  t.equal(client.pending, 'echo beforeecho  afterbye');
  client.destroy();
  t.strictSame(await service.exited, { code: 0, signal: null });
});
