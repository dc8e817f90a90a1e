import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a handler that fails answers with an error, and the connection lives on', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = await RawClient.open(service.port);

  const thrown = await client.get('/throw').response();
  t.equal(thrown.status, 500);
  t.equal(thrown.headers['content-type'], 'application/json; charset=utf-8');
  t.strictSame(JSON.parse(thrown.body), {
    error: 'Internal Server Error',
    message: 'The service failed to answer this request.',
  });
  t.match(service.output, /^ERROR: Handler of GET \/throw failed: thrown on purpose$/m);

  const rejected = await client.get('/reject').response();
  t.equal(rejected.status, 409);
  t.strictSame(JSON.parse(rejected.body), { error: 'Conflict', message: 'Rejected on purpose.' });

  t.equal((await client.get('/').response()).status, 200);
  client.destroy();
  await service.statusWhen(({ in_flight }) => in_flight.count === 0);
});

t.test('a handler that fails after the head has its connection destroyed', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = (await RawClient.open(service.port)).get('/half');
  await client.ended;
  t.match(client.pending, /^HTTP\/1\.1 200 OK\r\n/);
  t.match(client.pending, 'half of it');
  t.notMatch(client.pending, /\r\n0\r\n\r\n$/, 'half an answer must not look whole');
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);
  await service.statusWhen(({ in_flight }) => in_flight.count === 0);
});

t.test('a handler that fails while the service stops answers too, and closes', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = (await RawClient.open(service.port)).get('/hold-then-throw/a');
  await service.line('holding a');
  await service.stop();
  service.release('a');
  t.match(await client.response(), { status: 500, headers: { connection: 'close' } });
  t.equal(await client.ended, 'fin');
  t.strictSame(await service.exited, { code: 0, signal: null });
});
