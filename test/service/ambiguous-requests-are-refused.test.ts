import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

const BEHIND = 'GET / HTTP/1.1\r\nHost: test\r\n\r\n';

t.test('what node:http would take for a request, and a strict reader not, ends the connection', async (t) => {
  const service = await ServiceProcess.running(t);
  const head = 'POST /json HTTP/1.1\r\nHost: test\r\n';
  for (const [text, status] of [
    ['GET /\r\nHost: test\r\n\r\n', 505],
    ['GET / HTTP/2.0\r\nHost: test\r\n\r\n', 505],
    ['GET / HTTP/0.9\r\nHost: test\r\n\r\n', 505],
    ['GET /socket/a HTTP/2.0\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n', 505],
    [`${head}Transfer-Encoding: identity\r\n\r\n`, 400],
    [`${head}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, 400],
    [`${head}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n`, 400],
    [`${head}Transfer-Encoding:\r\n\r\n`, 400],
    ['POST /json HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400],
  ] as const) {
    const client = (await RawClient.open(service.port)).write(`${text}${BEHIND}`);
    t.match(await client.response(), { status, headers: { connection: 'close' } }, JSON.stringify(text));
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '', 'what came behind it is not answered');
  }
  await service.stop();
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test('it does not cost the requests before it their answers', async (t) => {
  const service = await ServiceProcess.running(t);
  const client = await RawClient.open(service.port);
  client.get('/hold/a').write(`GET / HTTP/2.0\r\nHost: test\r\n\r\n${BEHIND}`);
  await service.line('holding a');
  service.release('a');
  t.match(await client.response(), { status: 200, body: '{"held":"a"}' });
  t.match(await client.response(), { status: 505 });
  t.equal(await client.ended, 'fin');
  t.equal(client.pending, '');
});

t.test('a request that was answered before its body broke off gets no second answer', async (t) => {
  const service = await ServiceProcess.running(t, { env: { MAX_IN_FLIGHT: '1' } });
  const broken = ['5\r\nhelloX\r\n', 'not a chunk\r\n'];
  const head = { 'Transfer-Encoding': 'chunked' };
  for (const text of broken) {
    const client = (await RawClient.open(service.port)).request('POST', '/nowhere', head);
    t.equal((await client.response()).status, 404);
    client.write(text);
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '');
    client.destroy();
  }

  // Refused behind one that is in flight: that one keeps its answer.
  const client = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  client.request('POST', '/json', head).write(broken[1] as string);
  const other = (await RawClient.open(service.port)).get('/');
  t.equal((await other.response()).status, 503, 'it has been read');
  service.release('a');
  t.match(await client.response(), { status: 200, body: '{"held":"a"}' });
  t.match(await client.response(), { status: 503 });
  t.equal(await client.ended, 'fin');
  t.equal(client.pending, '');
});
