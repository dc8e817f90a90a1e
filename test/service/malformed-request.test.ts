import t from 'tap';
import { holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

const GARBAGE = 'THIS IS NOT HTTP\r\n\r\n';

t.test('what cannot be parsed gets a 400 and the end of the connection', async (t) => {
  const service = await ServiceProcess.running(t);
  for (const text of [
    GARBAGE,
    'GET / HTTP/1.1\r\nHost: test\r\nno colon\r\n\r\n',
    'POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
    'POST / HTTP/1.1\r\nHost: test\r\nContent-Length: -1\r\n\r\n',
    `${GARBAGE}${'more of it\r\n'.repeat(1000)}`,
  ]) {
    const client = (await RawClient.open(service.port)).write(text);
    const answer = await client.response();
    t.match(answer, { status: 400, headers: { connection: 'close' } });
    t.strictSame(JSON.parse(answer.body), {
      error: 'Bad Request',
      message: 'The request could not be read.',
    });
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '');
  }
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);
});

t.test('a head that is too large gets a 431', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = await RawClient.open(service.port);
  client.request('GET', '/', { 'X-Large': 'x'.repeat(200_000) });
  t.match(await client.response(), { status: 431, headers: { connection: 'close' } });
  t.equal(await client.ended, 'fin');
});

t.test('a HEAD whose body breaks off gets a head alone', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = await RawClient.open(service.port);
  client.write('HEAD /hold/a HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n');
  await service.line('holding a');
  client.socket.end();
  t.equal(await client.ended, 'fin');
  t.match(client.pending, /^HTTP\/1\.1 400 Bad Request\r\n.*\r\n\r\n$/s);
  service.release('a');
});

t.test('garbage behind a request in flight does not cost that its answer', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = (await RawClient.open(service.port)).get('/hold/a').get('/hold/b').write(GARBAGE);
  await service.line('holding b');
  client.write(GARBAGE);
  // The service has read it when it has answered what came later.
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);
  service.release('b');
  service.release('a');
  t.match(await client.response(), { status: 200, body: '{"held":"a"}' });
  t.match(await client.response(), { status: 200, body: '{"held":"b"}' });
  t.match(await client.response(), { status: 400, headers: { connection: 'close' } });
  t.equal(await client.ended, 'fin');
  t.equal(client.pending, '');
  await service.statusWhen(({ in_flight }) => in_flight.count === 0);
});

t.test('the same while the service stops', async (t) => {
  const service = await ServiceProcess.running(t);
  const drain = await holdDrain(service);
  const before = (await RawClient.open(service.port)).get('/hold/a').write(GARBAGE);
  const after = (await RawClient.open(service.port)).get('/hold/b');
  const broken = await RawClient.open(service.port);
  await service.line('holding a');
  await service.line('holding b');
  await service.stop();

  after.write(GARBAGE);
  broken.write(GARBAGE);
  t.match(await broken.response(), { status: 400, headers: { connection: 'close' } });
  t.equal(await broken.ended, 'fin');
  service.release('a');
  service.release('b');
  for (const client of [before, after]) {
    const answer = await client.response();
    t.equal(answer.status, 200);
    t.not(answer.headers.connection, 'close', 'there is an answer to come');
    t.match(await client.response(), { status: 400, headers: { connection: 'close' } });
    t.equal(await client.ended, 'fin');
  }
  await drain.finish(t);
});

t.test('a body that breaks off in garbage gets a 400, and is not in flight any more', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = await RawClient.open(service.port);
  client.request('POST', '/upload', { 'Transfer-Encoding': 'chunked' }).write('5\r\nhello\r\n');
  await service.line('receiving');
  client.write('not a chunk\r\n').write(GARBAGE);
  t.match(await client.response(), { status: 400, headers: { connection: 'close' } });
  t.equal(await client.ended, 'fin');
  await service.statusWhen(({ in_flight }) => in_flight.count === 0);
  client.destroy();
});
