import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a client that ends its side after the request gets the 503', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  await service.stop();
  const client = (await RawClient.open(service.port)).get('/');
  client.socket.end();
  assertRefused(t, await client.response());
  await drain.finish(t);
});

t.test('also when it comes with the end of the drain, where answers are held', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  await service.stop();

  // While it stands still the kernel takes connections for it: it finds them in its queue with the end of the drain.
  service.child.kill('SIGSTOP');
  const clients = await Promise.all(Array.from({ length: 20 }, () => RawClient.open(service.port)));
  for (const client of clients) client.get('/').socket.end();
  const finished = drain.finish(t);
  service.child.kill('SIGCONT');
  for (const client of clients) assertRefused(t, await client.response());
  await finished;
});
