import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

const LARGE = 10 * 1024 * 1024;

t.test('the 503 to a large upload arrives whole, and the connection ends without a reset', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).status, 200);
  await service.stop();

  const fresh = await RawClient.open(service.port);
  for (const client of [fresh, idle]) {
    client.request('POST', '/upload', { 'Content-Length': String(LARGE) });
    const written = new Promise((resolve) => client.socket.write(Buffer.alloc(LARGE), resolve));
    assertRefused(t, await client.response());
    t.equal(await client.ended, 'fin');
    await written;
    t.equal(client.pending, '');
  }

  await drain.finish(t);
});

t.test('a chunked body is refused in the same way', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  await service.stop();

  const small = await RawClient.open(service.port);
  small.request('POST', '/upload', { 'Transfer-Encoding': 'chunked' }).write('5\r\nhello\r\n0\r\n\r\n');
  assertRefused(t, await small.response());
  t.equal(await small.ended, 'fin');

  const large = await RawClient.open(service.port);
  large.request('POST', '/upload', { 'Transfer-Encoding': 'chunked' });
  large
    .write(`${LARGE.toString(16)}\r\n`)
    .write(Buffer.alloc(LARGE))
    .write('\r\n0\r\n\r\n');
  assertRefused(t, await large.response());
  t.equal(await large.ended, 'fin');

  const unending = await RawClient.open(service.port);
  unending.request('POST', '/upload', { 'Transfer-Encoding': 'chunked' }).write('5\r\nhello\r\n');
  assertRefused(t, await unending.response());
  t.equal(await unending.ended, 'fin', 'also when the end of the body never comes');

  await drain.finish(t);
});
