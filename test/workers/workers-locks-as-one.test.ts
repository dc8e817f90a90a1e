import t from 'tap';
import { assertRefused } from '../support/drain.ts';
import { count, WorkersService } from '../support/workers-service.ts';

for (const workers of [1, 2]) {
  t.test(
    `${workers} workers: what comes after the signal is refused, what came before is answered`,
    async (t) => {
      const pool = await WorkersService.running(t, { workers, env: { SHUTDOWN_TIMEOUT: '60' } });
      const { service } = pool;
      const idle = await Promise.all([pool.connect(), pool.connect()]);
      for (const client of idle) t.equal((await client.get('/').response()).status, 200);
      const held = [];
      for (const name of ['a', 'b']) {
        held.push((await pool.connect()).get(`/hold/${name}`));
        await service.line(`holding ${name}`);
      }
      const [first, second] = held;
      await service.stop();

      const fresh = await pool.connect();
      assertRefused(t, await fresh.get('/').response());
      t.equal(await fresh.ended, 'fin');
      for (const client of idle) assertRefused(t, await client.get('/').response());
      first?.get('/');

      const status = await service.statusWhen(({ rejected }) => rejected.stopping >= 4);
      t.match(status, { state: 'stopping', in_flight: { count: 2 }, shutdown: { reason: 'SIGTERM' } });
      t.equal((await service.operator('/livez')).status, 200);
      t.equal((await service.operator('/readyz')).status, 503);

      pool.open('a');
      t.equal((await first?.response())?.status, 200, 'what was in flight is answered');
      const pipelined = await first?.response();
      if (pipelined !== undefined) assertRefused(t, pipelined);
      pool.open('b');
      const last = await second?.response();
      t.equal(last?.status, 200);
      t.equal(last?.headers.connection, 'close');
      t.strictSame(await service.exited, { code: 0, signal: null });

      const promised = [
        'INFO: Received signal 15. Initiating graceful shutdown (fail-safe)...',
        'WARNING: Service state: STOPPING - Rejecting new requests (fail-safe mode). 2 in-flight requests remaining.',
        'INFO: Waiting up to 60s for 2 in-flight requests to complete...',
        'INFO: Service state: STOPPED - All requests completed gracefully',
        'INFO: Service shutdown complete',
      ];
      t.strictSame(
        service.lines.filter((line) => promised.includes(line)),
        promised,
        'the lines that people search for, once each',
      );
      t.equal(
        count(service.lines, 'Service state: '),
        4,
        'STARTING, RUNNING, STOPPING, STOPPED: from the supervisor alone',
      );
      t.match(service.report(), {
        ...{ in_flight_at_lock: 2, completed: 2, aborted: 0, cut: [], rejected: 4, exit_code: 0 },
      });
    },
  );
}

t.test('workers leave at once when nothing is in flight, whatever is connected', async (t) => {
  const pool = await WorkersService.running(t, { env: { SHUTDOWN_TIMEOUT: '60' } });
  const used = await pool.connect();
  t.equal((await used.get('/').response()).status, 200);
  const silent = await pool.connect();
  const half = (await pool.connect()).write('GET / HTTP/1.1\r\nHost: te');
  await pool.service.statusWhen(({ connections }) => connections.open === 3);

  pool.service.signal('SIGTERM');
  t.strictSame(await pool.service.exited, { code: 0, signal: null });
  t.ok(pool.service.report().duration_seconds < 10, 'not the grace of 60 s');
  t.equal((await half.response()).status, 503, 'half a request is refused whole');
  t.equal(await used.ended, 'fin');
  t.equal(await silent.ended, 'fin');
});
