import { Buffer } from 'node:buffer';
import t from 'tap';
import { GuardedProgram } from '../support/guarded-program.ts';
import { RawClient } from '../support/raw-client.ts';
import { residentBytes } from '../support/resident.ts';

/** What the program was asked, as it says. */
interface Echo {
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: readonly string[];
  readonly rawTrailers: readonly string[];
  readonly bytes: number;
}

function echoOf(body: string): Echo & { readonly values: (name: string) => string[] } {
  const echo: Echo = JSON.parse(body);
  const values = (name: string): string[] =>
    echo.rawHeaders.filter((_, at) => at % 2 === 1 && echo.rawHeaders[at - 1]?.toLowerCase() === name);
  return { ...echo, values };
}

t.test('a request reaches the program as it came, but for what is about its connection', async (t) => {
  const guarded = await GuardedProgram.running(t);
  const client = await guarded.connect();
  client.request('GET', '/echo?q=%20', {
    'X-Own': 'one',
    'x-own': 'two',
    Connection: 'keep-alive, X-Private',
    'X-Private': 'a',
    'Keep-Alive': 'timeout=1',
    'Proxy-Connection': 'keep-alive',
    TE: 'trailers, deflate',
    'X-Forwarded-For': '203.0.113.9',
    'X-Forwarded-Host': 'evil',
    X_Forwarded_For: '203.0.113.9',
    Transfer_Encoding: 'chunked',
    'X-Real-IP': '203.0.113.9',
    Forwarded: 'for=203.0.113.9',
    'X-Request-Id': 'mine',
  });
  const answer = await client.response();
  const { method, url, values, rawHeaders } = echoOf(answer.body);
  t.match({ method, url }, { method: 'GET', url: '/echo?q=%20' });
  t.strictSame(values('x-own'), ['one', 'two']);
  t.strictSame(values('host'), ['localhost']);
  t.strictSame(values('te'), ['trailers'], 'trailers are passed on, so they are asked for');
  for (const name of [
    'x-private',
    'keep-alive',
    'proxy-connection',
    'x-real-ip',
    'x_forwarded_for',
    'transfer_encoding',
  ])
    t.strictSame(values(name), [], name);
  t.strictSame(values('x-forwarded-for'), ['127.0.0.1']);
  t.strictSame(values('x-forwarded-proto'), ['http']);
  t.strictSame(values('x-forwarded-host'), ['localhost']);
  t.strictSame(values('forwarded'), ['for=127.0.0.1;host="localhost";proto=http']);
  t.strictSame(values('x-request-id'), [answer.headers['x-request-id']], 'the id of the answer');
  t.notMatch(rawHeaders.join(), 'mine');

  client.request('POST', '/echo');
  t.strictSame(echoOf((await client.response()).body).values('content-length'), ['0']);
  client.write('GET http://other.example/absolute?a HTTP/1.1\r\nHost: localhost\r\n\r\n');
  const absolute = echoOf((await client.response()).body);
  t.equal(absolute.url, '/absolute?a', 'an origin server is asked for a path');
  t.strictSame(absolute.values('host'), ['other.example'], 'and the target goes before the Host');
  client.request('OPTIONS', '*');
  t.equal(echoOf((await client.response()).body).url, '*');
});

t.test('what a trusted proxy says of the client is passed on', async (t) => {
  const guarded = await GuardedProgram.running(t, { env: { TRUSTED_PROXIES: '127.0.0.0/8' } });
  const client = await guarded.connect();
  client.request('GET', '/echo', {
    'X-Forwarded-For': '203.0.113.9',
    'X-Forwarded-Proto': 'https',
    'X-Forwarded-Host': 'shop.example',
    'X-Forwarded-Port': '443',
    'X-Request-Id': 'theirs',
  });
  const { values } = echoOf((await client.response()).body);
  t.strictSame(values('x-forwarded-for'), ['203.0.113.9, 127.0.0.1']);
  t.strictSame(values('x-forwarded-proto'), ['https']);
  t.strictSame(values('x-forwarded-host'), ['shop.example']);
  t.strictSame(values('x-forwarded-port'), ['443']);
  t.strictSame(values('x-request-id'), ['theirs']);
});

t.test('bodies, trailers, expectations and interim answers pass', async (t) => {
  const guarded = await GuardedProgram.running(t);
  const client = await guarded.connect();
  client.request('POST', '/echo', { 'Transfer-Encoding': 'chunked', Trailer: 'X-Sum' });
  client.write('5\r\nhello\r\n0\r\nX-Sum: 7\r\nHost: evil\r\nX-Forwarded-For: evil\r\n\r\n');
  const chunked = echoOf((await client.response()).body);
  t.equal(chunked.bytes, 5);
  t.strictSame(chunked.rawTrailers, ['X-Sum', '7'], 'and no trailer that says more than text');
  t.strictSame(chunked.values('transfer-encoding'), ['chunked']);

  client.request('POST', '/echo', { 'Content-Length': '2', Expect: '100-continue' });
  t.equal((await client.response()).status, 100, 'the program has asked for the body');
  client.write('ab');
  t.equal(echoOf((await client.response()).body).bytes, 2);
  client.request('POST', '/refuses', { 'Content-Length': '2', Expect: '100-continue' });
  t.equal((await client.response()).status, 413, 'the program has refused it');
  client.destroy();

  const other = await guarded.connect();
  other.get('/hints');
  const hint = await other.response();
  t.match(hint, { status: 103, headers: { link: '</style.css>; rel=preload' } });
  t.equal((await other.response()).body, 'with hints');
  other.request('HEAD', '/echo');
  t.match(await other.response({ head: true }), { status: 200, body: '' });
  other.get('/trailers');
  await other.received(1);
  // The reader of answers keeps no trailers.
  const rest = new Promise<string>((resolve) =>
    other.socket.on('data', () => other.pending.endsWith('\r\n\r\n') && resolve(other.pending)),
  );
  other.get('/trailers');
  t.match(await rest, 'X-Sum: 42');
  other.destroy();

  const third = (await guarded.connect()).get('/headers');
  const raw = await third.received(1).then(() => third.pending);
  t.match(raw, /Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n/);
  t.notMatch(raw, /X-Private|timeout=9/);
});

t.test('an answer that comes before the body was read arrives', async (t) => {
  const guarded = await GuardedProgram.running(t);
  const client = await guarded.connect();
  client.request('POST', '/refuses', { 'Content-Length': '50000000' }).write(Buffer.alloc(1_000_000));
  const answer = await client.response();
  t.match(answer, { status: 413, body: 'too large' });
  const silent = (await guarded.connect()).request('POST', '/refuses', { 'Content-Length': '2' });
  t.equal((await silent.response()).status, 413, 'also when none of it has come yet');
});

t.test('pipelined requests reach the program one after the other', async (t) => {
  const guarded = await GuardedProgram.running(t);
  const client = await guarded.connect();
  client.request('POST', '/hold/a').request('GET', '/pid').request('GET', '/echo');
  await guarded.service.line('holding a');
  await guarded.service.statusWhen(({ in_flight }) => in_flight.count === 3);
  t.equal(guarded.ledger.length, 1, 'the others wait');
  guarded.open('a');
  t.match(JSON.parse((await client.response()).body), { held: 'a' });
  t.match(JSON.parse((await client.response()).body), { pid: Number });
  t.equal(echoOf((await client.response()).body).url, '/echo');

  client.request('POST', '/hold/b').request('GET', '/pid');
  await guarded.service.line('holding b');
  await guarded.service.statusWhen(({ in_flight }) => in_flight.count === 2);
  client.destroy();
  await guarded.service.statusWhen(({ in_flight }) => in_flight.count === 0);
  await (await guarded.connect()).request('GET', '/echo').response();
  t.equal(guarded.ledger.length, 5, 'what a client has left behind unsent is not sent');
});

t.test('an upgrade passes when the program takes it, and its refusal when it does not', async (t) => {
  const guarded = await GuardedProgram.running(t);
  const taken = (await guarded.connect()).request('GET', '/chat', {
    Connection: 'Upgrade',
    Upgrade: 'echo',
  });
  t.match(await taken.response(), { status: 101, headers: { upgrade: 'echo', connection: 'Upgrade' } });
  taken.write('over and out');
  await taken.received(12);
  t.equal(taken.pending, 'over and out');
  const refused = (await guarded.connect()).request('GET', '/refuse', {
    Connection: 'Upgrade',
    Upgrade: 'echo',
  });
  t.match(await refused.response(), { status: 403, body: 'no' });
  const smuggled = (await guarded.connect()).request('GET', '/chat', {
    Connection: 'Upgrade, HTTP2-Settings',
    Upgrade: 'h2c',
    'HTTP2-Settings': 'AAMAAABkAAQAAP__',
  });
  t.equal((await smuggled.response()).status, 200, 'what carries requests of its own is no upgrade');
  taken.destroy();
  await guarded.service.statusWhen(({ in_flight }) => in_flight.count === 0);
  guarded.service.signal('SIGTERM');
  await guarded.service.exited;
  const statuses = guarded.audit().map(({ path, status }) => `${path} ${status}`);
  t.strictSame(statuses.sort(), ['/chat 101', '/chat 200', '/refuse 403'], 'and all are on record');
});

t.test('what is ambiguous does not reach the program', async (t) => {
  const guarded = await GuardedProgram.running(t);
  for (const [head, status] of [
    ['GET / HTTP/1.1\r\n', 400],
    ['GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n', 400],
    ['GET /\\evil HTTP/1.1\r\nHost: a\r\n', 400],
    ['GET * HTTP/1.1\r\nHost: a\r\n', 400],
    ['POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n', 400],
    ['POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n', 400],
    ['GET / HTTP/1.1\r\nHost: a\r\nExpect: the-best\r\n', 417],
  ] as const) {
    const client = (await guarded.connect()).write(`${head}\r\n`);
    t.equal((await client.response()).status, status, head);
  }
  t.strictSame(guarded.ledger, []);
});

t.test('a large upload and a large answer take little memory', async (t) => {
  const guarded = await GuardedProgram.running(t, { nodeArgs: ['--max-old-space-size=64'] });
  const { port } = guarded;
  const before = residentBytes(guarded.service.pid);
  const megabytes = 256;
  const upload = await guarded.connect();
  upload.request('POST', '/echo', { 'Content-Length': String(megabytes * 1024 * 1024) });
  const piece = Buffer.alloc(1024 * 1024);
  for (let sent = 0; sent < megabytes; sent += 1)
    if (!upload.socket.write(piece)) await new Promise((resolve) => upload.socket.once('drain', resolve));
  t.equal(JSON.parse((await upload.response()).body).bytes, megabytes * 1024 * 1024);

  const download = new RawClient(port);
  t.teardown(() => download.destroy());
  let bytes = 0;
  download.socket.removeAllListeners('data').on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    // A reader that is slower than the program.
    download.socket.pause();
    setImmediate(() => download.socket.resume());
  });
  download.request('GET', `/large/${megabytes}`, { Connection: 'close' });
  await download.ended;
  t.ok(bytes >= megabytes * 1024 * 1024, `${bytes} bytes`);
  const grown = residentBytes(guarded.service.pid) - before;
  t.ok(grown < 128 * 1024 * 1024, `grown by ${Math.round(grown / 1024 / 1024)} MB`);
});
