import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test('an upload that stalls is cut after 5 seconds, and nothing else is', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  // Both of these have been without a byte for longer than the upload when that is cut.
  const ignored = await RawClient.open(service.port);
  ignored.request('POST', '/ignore/a', { 'Content-Length': '10' }).write('hello');
  await service.line('holding a');
  const slow = await RawClient.open(service.port);
  slow.request('POST', '/slow-reader/b', { 'Content-Length': '200000' }).write(Buffer.alloc(150_000));
  await service.line('reading slowly b');
  const working = (await RawClient.open(service.port)).get('/hold/c');
  await service.line('holding c');
  const stalled = await RawClient.open(service.port);
  stalled.request('POST', '/upload', { 'Content-Length': '10' }).write('hello');
  await service.line('receiving');

  const sinceMs = performance.now();
  await service.stop();
  await service.line('WARNING: Cut in-flight request: POST /upload');
  t.ok(performance.now() - sinceMs >= 5_000, 'not sooner');
  t.not(await stalled.ended, undefined);
  t.equal(stalled.pending, '');

  for (const name of ['a', 'b', 'c']) service.release(name);
  slow.write(Buffer.alloc(50_000));
  for (const client of [ignored, slow, working]) t.equal((await client.response()).status, 200);
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.equal(service.lines.filter((line) => line.includes('Cut in-flight')).length, 1);
  t.match(
    service.lines.find((line) => line.includes('Cut in-flight')),
    /^WARNING: Cut in-flight request: POST \/upload after \d+(\.\d)?s \(receiving\), because its body has stalled$/,
  );
  t.match(service.report(), { completed: 3, cut: [{ method: 'POST', path: '/upload' }] });
});

t.test('an upload that stalls does not cost the whole grace period', async (t) => {
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const client = await RawClient.open(service.port);
  client.request('POST', '/upload', { 'Transfer-Encoding': 'chunked' }).write('5\r\nhello\r\n');
  await service.line('receiving');

  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 1, signal: null });
  t.match(service.output, 'WARNING: Cut in-flight request: POST /upload');
  t.notMatch(service.output, 'Shutdown timeout');
  t.notMatch(service.output, 'gracefully');
  client.destroy();
});
