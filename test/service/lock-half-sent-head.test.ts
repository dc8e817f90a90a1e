import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a request whose head was half sent at the signal gets the 503 when it is completed', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const fresh = (await RawClient.open(service.port)).write('GET / HT');
  const reused = await RawClient.open(service.port);
  t.equal((await reused.get('/').response()).status, 200);
  reused.write('GET / HTTP/1.1\r\nHost: te');
  await service.stop();

  for (const [client, rest] of [
    [fresh, 'TP/1.1\r\nHost: test\r\n\r\n'],
    [reused, 'st\r\n\r\n'],
  ] as const) {
    assertRefused(t, await client.write(rest).response());
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '');
  }

  await drain.finish(t);
});

t.test('a half-sent request delays nothing, and gets the 503 when the service leaves', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const fresh = (await RawClient.open(service.port)).write('GET / HT');
  const reused = await RawClient.open(service.port);
  t.equal((await reused.get('/').response()).status, 200);
  reused.write('POST / HTTP/1.1\r\nHost: test\r\nContent-');
  const silent = await RawClient.open(service.port);
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);
  // What was written before this connection's answer has been read by the service too.
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);

  service.signal('SIGTERM');
  for (const client of [fresh, reused]) {
    assertRefused(t, await client.response());
    t.equal(await client.ended, 'fin');
  }
  for (const client of [silent, idle]) {
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '', 'who has sent nothing is told nothing');
  }
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test('the end of a body that came after its answer is no half-sent request', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = await RawClient.open(service.port);
  client.request('POST', '/ignore/a', { 'Content-Length': '10' }).write('hello');
  await service.line('holding a');
  service.release('a');
  t.equal((await client.response()).status, 200);
  client.write('world');
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);

  service.signal('SIGTERM');
  t.equal(await client.ended, 'fin');
  t.equal(client.pending, '', 'an answer to nothing would be taken for the next one');
  t.strictSame(await service.exited, { code: 0, signal: null });
});
