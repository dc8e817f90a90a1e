import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { GuardedProgram } from '../support/guarded-program.ts';
import { need } from '../support/need.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { MAIN } from '../support/service-process.ts';

const APT = 'apt-get install -y --no-install-recommends uvicorn python3-fastapi';
need('uvicorn', APT);
// Debian's, whichever python3 comes first.
const PYTHON = '/usr/bin/python3';
if (spawnSync(PYTHON, ['-c', 'import fastapi']).status !== 0) throw new Error(`There is no FastAPI: ${APT}`);

const EXAMPLE = join(ROOT, 'examples/fastapi');
const UVICORN = ['uvicorn', '--app-dir', EXAMPLE, 'app:app', '--no-access-log', '--uds', '{socket}'];

/**
 * uvicorn without `--timeout-graceful-shutdown`, which that of Debian 12 does not have, waits for a handler whose client
 * has left until it is killed.
 */
const NOT_BY_UVICORN = ['leave-when-client-gone'];

interface Verdict {
  readonly name: string;
  readonly pass: boolean;
  readonly outcome: string;
}

t.test('the example passes its own tests', async (t) => {
  const { status, stderr } = spawnSync(PYTHON, [join(EXAMPLE, 'test_app.py')], { encoding: 'utf8' });
  t.equal(status, 0, stderr);
  t.match(stderr, /Ran 2 tests/);
});

t.test('FastAPI under uvicorn, unchanged, stops as it should in each scenario', async (t) => {
  const app = join(ROOT, 'bench/peers');
  const program = `uvicorn --log-level warning --app-dir ${app} fastapi_app:app --uds {socket}`;
  const settings = 'OPS_PORT=off LOG_LEVEL=warn STATE_DIR=$SCRATCH';
  const command = `${settings} node ${MAIN} guard -- ${program}`;
  const { stdout, stderr } = spawnSync(process.execPath, [MAIN, 'conformance', '--json', '--cmd', command], {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  const { scenarios }: { scenarios: readonly Verdict[] } = JSON.parse(stdout || `{"scenarios":[]}`);
  t.ok(scenarios.length > 80, stderr.slice(-2_000));
  for (const { name, pass, outcome } of scenarios)
    if (!NOT_BY_UVICORN.includes(name)) t.ok(pass, `${name}: ${outcome}`);
});

t.test('reloads of uvicorn lose no request, and a kill answers each', async (t) => {
  const guarded = await GuardedProgram.running(t, { command: UVICORN });
  let goes = true;
  const statuses: (number | undefined)[] = [];
  const load = async (): Promise<void> => {
    let client = await RawClient.open(guarded.port);
    for (let number = 0; goes; number += 1) {
      if (client.end !== undefined) client = await RawClient.open(guarded.port);
      if (number % 2 === 0) client.get('/health');
      else client.request('POST', '/data?item=tea', { 'Content-Length': '0' });
      statuses.push((await client.answer({ ms: 60_000 })).status);
    }
    client.destroy();
  };
  const loads = Promise.all([load(), load(), load()]);
  for (let times = 0; times < 3; times += 1) await guarded.reload();
  t.strictSame(
    statuses.filter((status) => status !== 200 && status !== 201),
    [],
    `${statuses.length} requests`,
  );
  const [pid = 0] = await guarded.pids();
  process.kill(pid, 'SIGKILL');
  await guarded.statusWhen(({ restarts }) => restarts.ended === 1);
  await guarded.pids();
  goes = false;
  await loads;
  t.strictSame(
    statuses.filter((status) => status !== 200 && status !== 201 && status !== 502 && status !== 503),
    [],
    'and who was cut has been told so',
  );
});
