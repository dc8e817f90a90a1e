import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

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
