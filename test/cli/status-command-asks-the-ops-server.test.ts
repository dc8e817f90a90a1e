import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import t, { type Test } from 'tap';
import type { Status } from '../../src/ops/status.ts';
import { drainLine } from '../../src/ops/summary-line.ts';
import { version } from '../../src/version.ts';
import { Doors, running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

async function said(
  t: Test,
  args: string[],
  stateDir: string,
  env: Record<string, string> = {},
): Promise<[number | null, string]> {
  const child = ServiceProcess.spawn(t, { args: ['status', ...args], stateDir, env });
  const { code } = await child.exited;
  return [code, child.output];
}

t.test('status tells what the service does, where STATE_DIR says that its door is', async (t) => {
  const doors = new Doors();
  const { stateDir, port, operator } = await running(t, {
    app: {
      routes: (router) =>
        router.get('/hold', async () => {
          doors.open('held');
          await doors.wait('never');
        }),
    },
  });
  const client = (await RawClient.open(port)).get('/hold?secret=1');
  await doors.wait('held');
  // The setting is not where it is: it took any port that was free, and noted which.
  const [[code, text], [jsonCode, json]] = await Promise.all([
    said(t, [], stateDir, { OPS_PORT: '1' }),
    said(t, ['--json'], stateDir, { OPS_PORT: 'off' }),
  ]);
  t.equal(code, 0);
  const lines = text.split('\n');
  t.match(lines, [
    new RegExp(`^master-agent ${version}, process ${process.pid}: running since \\d{4}-.*Z$`),
    /^Service running: 1 in flight; oldest GET \/hold, \d+\.\d s$/,
    'connections: 1 open, 0 idle; refused: 0',
    /^ +\d+\.\d s {2}GET \/hold {2}working {2}\S+$/,
  ]);
  t.equal(lines.length, 4);
  t.equal(jsonCode, 0);
  const now = (await (await operator('/status')).json()) as Status;
  // What goes on changing between two looks.
  const { uptime_seconds, in_flight, event_loop, ...lasting } = now;
  t.match(JSON.parse(json), lasting);
  t.strictSame(Object.keys(JSON.parse(json)), Object.keys(now));
  client.destroy();
});

t.test('status ends with 1 when nobody answers, and says where it asked', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  const stateDir = tempDir(t);
  const [[code, text], [offCode, off]] = await Promise.all([
    said(t, [], stateDir, { OPS_PORT: String(port) }),
    said(t, [], stateDir, { OPS_PORT: 'off' }),
  ]);
  t.equal(code, 1);
  t.match(text, `No answer from the ops server at http://127.0.0.1:${port}: `);
  t.equal(offCode, 78);
  t.match(off, /^master-agent: OPS_PORT is off: there is no ops server to ask /);
});

t.test('the line on a drain says what an operator wants to know', async (t) => {
  const status = (parts: object): Status =>
    ({
      state: 'running',
      in_flight: { count: 0, oldest: [], holds: [] },
      shutdown: null,
      ...parts,
    }) as unknown as Status;
  const shutdown = { remaining_seconds: 11.2 };
  const in_flight = { count: 3, oldest: [{ method: 'GET', path: '/report', age_ms: 4249 }, {}], holds: [] };
  const held = { ...in_flight, holds: [{ name: 'job 17\n', age_ms: 9060 }] };
  t.equal(drainLine(status({})), 'Service running: 0 in flight');
  t.equal(
    drainLine(status({ state: 'stopping', shutdown, in_flight })),
    'Draining: 3 in flight, 12 s left; oldest GET /report, 4.2 s',
  );
  t.equal(
    drainLine(status({ state: 'stopping', shutdown, in_flight: held })),
    'Draining: 3 in flight, 12 s left; oldest GET /report, 4.2 s; held by job 17\\u{a}, 9.1 s',
  );
  t.equal(drainLine(status({ state: 'stopping', shutdown })), 'Draining: 0 in flight, 12 s left');
  t.equal(drainLine(status({ state: 'stopped', shutdown })), 'Leaving: nothing in flight');
  t.equal(drainLine(status({ shutdown })), 'Lame duck: 0 in flight, 12 s left');
});
