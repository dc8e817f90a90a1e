import t from 'tap';
import { WorkersService } from '../support/workers-service.ts';

for (const workers of [1, 2]) {
  t.test(`${workers} workers serve in turn, and /status and /metrics tell of them as one`, async (t) => {
    const pool = await WorkersService.running(t, { workers });
    const pids = await pool.pids(workers);
    t.equal(pids.length, workers);
    t.notOk(pids.includes(pool.service.pid), 'the supervisor serves nothing itself');

    const answered = new Set<number>();
    for (let round = 0; round < 3 * workers; round += 1) {
      answered.add(JSON.parse((await pool.get()).body).pid);
    }
    t.strictSame([...answered].sort(), [...pids].sort(), 'each has answered');

    const held = [];
    for (const name of ['a', 'b', 'c']) {
      held.push((await pool.connect()).get(`/hold/${name}`));
      await pool.service.line(`holding ${name}`);
    }
    const status = await pool.service.statusWhen(({ in_flight }) => in_flight.count === 3);
    t.equal(status.state, 'running');
    t.equal(status.generation, 1);
    t.strictSame(status.in_flight.oldest.map(({ path }) => path).sort(), ['/hold/a', '/hold/b', '/hold/c']);
    t.equal(
      status.workers?.reduce((sum, { in_flight }) => sum + in_flight, 0),
      3,
    );
    t.equal(status.connections.open, 3);

    for (const name of ['a', 'b', 'c']) pool.open(name);
    for (const client of held) t.equal((await client.response()).status, 200);
    await pool.service.statusWhen(({ in_flight }) => in_flight.count === 0);
    const metrics = await (await pool.service.operator('/metrics')).text();
    t.match(
      metrics,
      `master_agent_http_requests_total{method="GET",route="/",status_class="2xx"} ${3 * workers}\n`,
    );
    t.match(
      metrics,
      'master_agent_http_requests_total{method="GET",route="/hold/:name",status_class="2xx"} 3\n',
    );
    t.match(metrics, `master_agent_workers{state="serving"} ${workers}\n`);
    t.equal((await pool.service.operator('/readyz')).status, 200);

    pool.service.signal('SIGTERM');
    t.strictSame(await pool.service.exited, { code: 0, signal: null });
    t.match(pool.service.report(), { in_flight_at_lock: 0, exit_code: 0 });
  });
}
