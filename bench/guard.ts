/**
 * What the gate in front of a program costs: CPU time per request of whatever stands in front of one and the same
 * program, in turns; what it adds to the time of a request; what uvicorn serves with it and without; and what clients
 * lose while the program is replaced again and again.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { machine, median, medianAndSpread, quantile, table } from '../test/support/figures.ts';
import { RawClient } from '../test/support/raw-client.ts';
import { ROOT } from '../test/support/root.ts';
import { ServerProcess } from '../test/support/server-process.ts';
import { playRound } from './round.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '12' },
    seconds: { type: 'string', default: '1' },
    requests: { type: 'string', default: '2000' },
    replacements: { type: 'string', default: '20' },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const load = loadavg()[0] ?? 0;
const scratch = mkdtempSync(join(tmpdir(), 'master-agent-bench-'));
const has = (program: string): boolean => spawnSync(program, ['-v']).error === undefined;

/** One port after the other, for programs that cannot be told to take any that is free. */
let nextPort = 21_000 + (process.pid % 1000) * 10;

try {
  console.log(`\n## guard: ${rounds} rounds of ${seconds} s\n`);
  console.log(
    `${machine(availableParallelism(), load)} Low quartile of the CPU time of what stands in front; medians (least to most).\n`,
  );
  await fronts();
  await uvicorn();
  await replacements();
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function configured(name: string, text: string): string {
  const file = join(scratch, name);
  writeFileSync(file, text);
  return file;
}

function port(): number {
  nextPort += 1;
  return nextPort;
}

/** Starts a proxy that does not say where it listens, and comes back when it does. */
async function proxy(name: string, command: string, args: string[], at: number): Promise<ServerProcess> {
  const server = await ServerProcess.serving(
    'sh',
    ['-c', `echo "Accepting requests on http://127.0.0.1:${at}"; exec "$@"`, 'sh', command, ...args],
    {},
    name,
  );
  for (;;) {
    const client = await RawClient.open(at).catch(() => undefined);
    if (client !== undefined) {
      client.destroy();
      return server;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function fronts(): Promise<void> {
  const program = await ServerProcess.peer('the program alone', 'bare-node.mjs');
  const to = String(program.port);
  const by = (client: string): Promise<ServerProcess> =>
    ServerProcess.serving(
      process.execPath,
      [join(ROOT, 'bench/servers/proxy-by-hand.mjs'), client],
      { env: { PORT: '0', PROGRAM_PORT: to } },
      `node:http and ${client === 'undici' ? 'undici' : "node:http's client"}, by hand`,
    );
  const guard = { GUARD_PORT: to, GUARD_READY: '/' };
  const servers = [program, await by('undici'), await by('node')];
  servers.push(
    await ServerProcess.ours('guard', { ...guard, AUDIT_LOG: 'off' }),
    await ServerProcess.ours('guard', guard),
  );
  const names = [...servers.map(({ name }) => name)];
  names[3] = 'guard, AUDIT_LOG=off';
  names[4] = 'guard';
  if (has('nginx')) {
    const at = port();
    const file = configured(
      'nginx.conf',
      `daemon off; master_process off; pid ${scratch}/nginx.pid; error_log stderr crit; events {} http { access_log off;
       client_body_temp_path ${scratch}/b; proxy_temp_path ${scratch}/p; fastcgi_temp_path ${scratch}/f; uwsgi_temp_path ${scratch}/u; scgi_temp_path ${scratch}/s;
       keepalive_requests 1000000; upstream a { server 127.0.0.1:${to}; keepalive 64; }
       server { listen 127.0.0.1:${at}; location / { proxy_pass http://a; proxy_http_version 1.1; proxy_set_header Connection ""; } } }`,
    );
    servers.push(await proxy('nginx', 'nginx', ['-c', file], at));
    names.push('nginx');
  }
  if (has('haproxy')) {
    const at = port();
    const file = configured(
      'haproxy.cfg',
      `global\n nbthread 1\ndefaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n http-reuse always
frontend f\n bind 127.0.0.1:${at}\n default_backend b\nbackend b\n server s 127.0.0.1:${to}\n`,
    );
    servers.push(await proxy('haproxy', 'haproxy', ['-db', '-f', file], at));
    names.push('haproxy');
  }
  const cpu = servers.map((): number[] => []);
  const perSecond = servers.map((): number[] => []);
  const ms = servers.map((): number[] => []);
  try {
    for (let round = -1; round < rounds; round += 1) {
      for (let turn = 0; turn < servers.length; turn += 1) {
        const index = (turn + round + 1) % servers.length;
        const server = servers[index] as ServerProcess;
        const played = await playRound(server, { connections: 32, seconds });
        if (round < 0) continue;
        cpu[index]?.push(played.cpuMicros);
        perSecond[index]?.push(played.perSecond);
      }
    }
    const each = Math.max(1, Math.round(Number(values.requests) / 10));
    for (let round = 0; round < 10; round += 1)
      for (const [index, server] of servers.entries()) {
        const client = await RawClient.open(server.port);
        for (let number = 0; number < each; number += 1) {
          const beganMs = performance.now();
          await client.get('/').response();
          ms[index]?.push(performance.now() - beganMs);
        }
        client.destroy();
      }
  } finally {
    await Promise.all(servers.map((server) => server.kill()));
  }
  const byHand = cpu[1] ?? [];
  const added = (index: number, share: number): string =>
    (quantile(ms[index] ?? [], share) - quantile(ms[0] ?? [], share)).toFixed(2);
  console.log(
    table(
      [
        'in front of the same node:http',
        'CPU µs/request',
        'of undici by hand',
        'requests/s',
        'adds p50, ms',
        'adds p99, ms',
      ],
      names.map((name, index) => [
        name,
        quantile(cpu[index] ?? [], 0.25).toFixed(1),
        medianAndSpread(
          (cpu[index] ?? []).map((micros, round) => micros / (byHand[round] ?? Number.NaN)),
          2,
        ),
        median(perSecond[index] ?? []).toFixed(0),
        added(index, 0.5),
        added(index, 0.99),
      ]),
    ),
  );
}

async function uvicorn(): Promise<void> {
  if (!has('uvicorn')) return;
  const at = port();
  const app = [
    '--app-dir',
    join(ROOT, 'bench/peers'),
    'fastapi_app:app',
    '--no-access-log',
    '--log-level',
    'warning',
  ];
  const alone = await proxy('uvicorn alone', 'uvicorn', [...app, '--port', String(at)], at);
  const guarded = await ServerProcess.ours('guard', {
    GUARD_COMMAND: JSON.stringify(['uvicorn', ...app, '--uds', '{socket}']),
    GUARD_READY: '/',
  });
  const perSecond: number[][] = [[], []];
  try {
    for (let round = -1; round < rounds; round += 1)
      for (const [index, server] of [alone, guarded].entries()) {
        const played = await playRound(server, { connections: 32, seconds });
        if (round >= 0) perSecond[index]?.push(played.perSecond);
      }
  } finally {
    await Promise.all([alone.kill(), guarded.kill()]);
  }
  const [one = [], other = []] = perSecond;
  console.log('');
  console.log(
    table(
      ['FastAPI under uvicorn', 'requests/s', 'of alone'],
      [
        ['alone', median(one).toFixed(0), '1'],
        [
          'guard',
          median(other).toFixed(0),
          medianAndSpread(
            other.map((rate, round) => rate / (one[round] ?? Number.NaN)),
            2,
          ),
        ],
      ],
    ),
  );
}

/** Replaces the program again and again, while clients ask as soon as they are answered. */
async function replacements(): Promise<void> {
  const times = Number(values.replacements);
  const rows: string[][] = [];
  for (const [name, env] of [
    ['reload', {}],
    ['hold (GUARD_OVERLAP=false)', { GUARD_OVERLAP: 'false', GUARD_HOLD: '60' }],
  ] as const) {
    const program = [process.execPath, join(ROOT, 'bench/unchanged/bare.mjs')];
    const server = await ServerProcess.ours('guard', {
      GUARD_COMMAND: JSON.stringify(program),
      GUARD_READY: '/',
      ...env,
    });
    let goes = true;
    let [asked, failed, longestMs] = [0, 0, 0];
    const client = async (): Promise<void> => {
      let connection = await RawClient.open(server.port);
      while (goes) {
        if (connection.end !== undefined) connection = await RawClient.open(server.port);
        const beganMs = performance.now();
        const answer = await connection
          .request('POST', '/upload', { 'Content-Length': '1' })
          .write('x')
          .answer({ ms: 60_000 });
        longestMs = Math.max(longestMs, performance.now() - beganMs);
        asked += 1;
        if (answer.status !== 200) failed += 1;
      }
      connection.destroy();
    };
    const clients = Promise.all(Array.from({ length: 16 }, client));
    for (let time = 1; time <= times; time += 1) {
      server.signal('SIGHUP');
      await server.line(`generation ${time + 1} serves`);
    }
    goes = false;
    await clients;
    await server.kill();
    rows.push([name, String(times), String(asked), String(failed), longestMs.toFixed(0)]);
  }
  console.log('');
  console.log(table(['the program is replaced by', 'times', 'requests', 'failed', 'longest, ms'], rows));
}
