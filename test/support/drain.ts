import type { Test } from 'tap';
import { RawClient, type RawResponse } from './raw-client.ts';
import type { ServiceProcess } from './service-process.ts';

/** A request in flight that keeps the service from leaving until the test lets it go. */
export interface Drain {
  /** Lets it go, and sees to it that it is answered and that the service then leaves by itself. */
  finish(t: Test): Promise<void>;
}

export async function holdDrain(service: ServiceProcess): Promise<Drain> {
  const client = (await RawClient.open(service.port)).get('/hold/drain');
  await service.line('holding drain');
  return {
    async finish(t) {
      service.release('drain');
      const answer = await client.response();
      t.equal(answer.status, 200, 'what was in flight is answered');
      t.equal(answer.headers.connection, 'close');
      t.strictSame(await service.exited, { code: 0, signal: null }, 'the service leaves by itself');
    },
  };
}

const BODY =
  '{"error":"Service Unavailable","message":"Service is shutting down. Please try again later.",' +
  '"service_state":"stopping","fail_safe":true}';

/** The 503 of a service that stops, to the byte. `last`: whether the connection ends with it. */
export function assertRefused(
  t: Test,
  { status, version, headers, body }: RawResponse,
  { last = true, head = false }: { last?: boolean; head?: boolean } = {},
): void {
  const { date, 'keep-alive': _, 'x-request-id': id, ...rest } = headers;
  t.strictSame(
    { status, version, headers: rest, body },
    {
      status: 503,
      version: 'HTTP/1.1',
      headers: {
        'content-type': 'application/json; charset=utf-8',
        'content-length': String(BODY.length),
        'retry-after': '5',
        'cache-control': 'no-store',
        connection: last ? 'close' : 'keep-alive',
      },
      body: head ? '' : BODY,
    },
    'the 503 and nothing else',
  );
  t.match(id, /^[0-9a-z]{6}-[0-9a-z]+$/, 'with an id');
  t.ok(Math.abs(Date.parse(date ?? '') - Date.now()) < 60_000, 'with the date');
}
