import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('an upgrade waits for its turn behind requests in flight', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = (await RawClient.open(service.port)).get('/hold/a').upgrade('/socket/b').write('early');
  await service.line('holding a');
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);
  service.release('a');

  t.match(await client.response(), { status: 200, body: '{"held":"a"}' });
  t.equal((await client.response()).status, 101);
  await service.statusWhen(({ in_flight }) => in_flight.count === 1);
  client.write('late');
  service.release('b');
  t.match(await client.rest(), /late.*bye$/);
  client.destroy();
  await service.statusWhen(({ in_flight }) => in_flight.count === 0);
});

t.test('an upgrade behind a large answer does not stop it', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = (await RawClient.open(service.port)).get('/pieces/20').upgrade('/socket/a');
  await client.received(20 * 1024 * 1024);
  const large = await client.response();
  t.match([large.status, large.body.length], [200, 20 * 1024 * 1024]);
  t.equal((await client.response()).status, 101);
  client.destroy();
});

t.test('an upgrade that nobody takes is ignored, and a CONNECT is no path of ours', async (t) => {
  const service = await ServiceProcess.running(t);
  const ignored = (await RawClient.open(service.port)).upgrade('/');
  t.match(await ignored.response(), { status: 200, body: '{"hello":"world"}' });
  const unknown = (await RawClient.open(service.port)).upgrade('/nowhere');
  t.equal((await unknown.response()).status, 404);
  const tunnel = await RawClient.open(service.port);
  tunnel.write('CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n');
  t.equal((await tunnel.response()).status, 400);
  t.equal(await tunnel.ended, 'fin');
  await service.statusWhen(({ in_flight }) => in_flight.count === 0);
  for (const client of [ignored, unknown, tunnel]) client.destroy();
});

t.test('a client that resets an upgraded connection costs nobody anything', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = (await RawClient.open(service.port)).upgrade('/deaf');
  t.equal((await client.response()).status, 101);
  client.socket.resetAndDestroy();
  await service.statusWhen(({ in_flight }) => in_flight.count === 0);
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);
});
