import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a streamed answer is sent to its end', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = (await RawClient.open(service.port)).get('/stream/a');
  await service.line('streaming a');
  await client.received(1);
  await service.stop();

  service.release('a');
  const answer = await client.response();
  t.equal(answer.status, 200);
  t.equal(answer.body, 'first\nlast\n');
  t.equal(await client.ended, 'fin', 'its head could not say so any more, but the connection ends');
  t.strictSame(await service.exited, { code: 0, signal: null });
});
