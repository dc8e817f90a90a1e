import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('a slow handler runs to its end, its answer closes, and then the service leaves', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const names = ['a', 'b', 'c'];
  const clients: RawClient[] = [];
  for (const name of names) {
    clients.push((await RawClient.open(service.port)).get(`/hold/${name}`));
    await service.line(`holding ${name}`);
  }
  await service.stop();
  await service.line('INFO: Waiting up to 60s for 3 in-flight requests to complete...');

  for (const [index, client] of clients.entries()) {
    service.release(names[index] ?? '');
    const answer = await client.response();
    t.equal(answer.status, 200);
    t.equal(answer.headers.connection, 'close');
    t.strictSame(JSON.parse(answer.body), { held: names[index] });
    t.equal(await client.ended, 'fin');
  }

  t.strictSame(await service.exited, { code: 0, signal: null });
  t.strictSame(
    service.lines.slice(service.lines.findIndex((line) => line.includes('Received signal'))),
    [
      'INFO: Received signal 15. Initiating graceful shutdown (fail-safe)...',
      'WARNING: Service state: STOPPING - Rejecting new requests (fail-safe mode). 3 in-flight requests remaining.',
      'INFO: Waiting up to 60s for 3 in-flight requests to complete...',
      'INFO: Service state: STOPPED - All requests completed gracefully',
      'INFO: Service shutdown complete',
    ],
    'the lines that people search for, in their order',
  );
  t.match(service.report(), { in_flight_at_lock: 3, completed: 3, aborted: 0, cut: [], exit_code: 0 });
});

t.test('an upload under way is read to its end, and answered', async (t) => {
  const service = await ServiceProcess.running(t);
  const sized = await RawClient.open(service.port);
  sized.request('POST', '/upload', { 'Content-Length': '3000000' }).write(Buffer.alloc(1_000_000));
  const chunked = await RawClient.open(service.port);
  chunked.request('POST', '/upload', { 'Transfer-Encoding': 'chunked' }).write('5\r\nhello\r\n');
  await service.until(
    () => (service.lines.filter((line) => line.includes('receiving')).length === 2 ? true : undefined),
    'both uploads',
  );
  await service.stop();

  sized.write(Buffer.alloc(2_000_000));
  chunked.write('6\r\n world\r\n').write('0\r\n\r\n');
  for (const [client, bytes] of [
    [sized, 3_000_000],
    [chunked, 11],
  ] as const) {
    const answer = await client.response();
    t.equal(answer.status, 200);
    t.equal(answer.headers.connection, 'close');
    t.strictSame(JSON.parse(answer.body), { bytes });
    t.equal(await client.ended, 'fin');
  }
  t.strictSame(await service.exited, { code: 0, signal: null });
});

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

const BYTES = 20 * 1024 * 1024;

t.test('a large answer reaches a slow reader to its last byte', async (t) => {
  const service = await ServiceProcess.running(t);
  const clients: RawClient[] = [];
  for (const path of ['/large/20', '/pieces/20']) {
    const client = (await RawClient.open(service.port)).get(path);
    client.socket.pause();
    clients.push(client);
  }
  // The one is ended and waits to be flushed; the other waits for room to write on.
  await service.statusWhen(({ in_flight }) => in_flight.count === 2);
  await service.stop();

  for (const client of clients) {
    client.socket.resume();
    await client.received(BYTES);
    const answer = await client.response();
    t.equal(answer.status, 200);
    t.equal(answer.body.length, BYTES);
  }
  for (const client of clients) t.equal(await client.ended, 'fin');
  t.strictSame(await service.exited, { code: 0, signal: null });
});

t.test(
  'pipelined requests that were admitted are all answered, and only the last answer closes',
  async (t) => {
    const service = await ServiceProcess.running(t);
    const client = (await RawClient.open(service.port)).get('/hold/a').get('/hold/b').get('/hold/c');
    for (const name of ['a', 'b', 'c']) await service.line(`holding ${name}`);
    await service.stop();

    // In another order than they are to be answered in.
    for (const name of ['c', 'a', 'b']) service.release(name);
    for (const held of ['a', 'b', 'c']) {
      const answer = await client.response();
      t.equal(answer.status, 200);
      t.strictSame(JSON.parse(answer.body), { held });
      if (held === 'c') t.equal(answer.headers.connection, 'close');
      else t.not(answer.headers.connection, 'close');
    }
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '');
    t.strictSame(await service.exited, { code: 0, signal: null });
  },
);

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
