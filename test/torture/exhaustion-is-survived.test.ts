import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { command } from '../support/audit.ts';
import { IdleCrowd } from '../support/idle-crowd.ts';
import { INSTALL, need } from '../support/need.ts';
import { RawClient } from '../support/raw-client.ts';
import { residentBytes } from '../support/resident.ts';
import { ServiceProcess } from '../support/service-process.ts';
import { SmallDisk } from '../support/small-disk.ts';

/** Opens so many connections, each of which then does what it is told. They go with the test. */
async function crowd(
  t: Test,
  port: number,
  count: number,
  opened: (socket: Socket) => void,
): Promise<Socket[]> {
  const sockets = await Promise.all(
    Array.from(
      { length: count },
      (_, index) =>
        new Promise<Socket>((resolve) => {
          const localAddress = `127.0.0.${2 + (index % 200)}`;
          const socket = connect({ port, host: '127.0.0.1', localAddress });
          socket.on('error', () => resolve(socket));
          socket.once('connect', () => {
            opened(socket);
            resolve(socket);
          });
        }),
    ),
  );
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
  });
  return sockets;
}

/** The stop still works while it lasts: what is in flight is answered, exit 0, an audit log that verifies. */
async function assertStops(t: Test, service: ServiceProcess, held: RawClient): Promise<void> {
  await service.stop();
  service.release('a');
  t.equal((await held.response()).status, 200);
  t.strictSame(await service.exited, { code: 0, signal: null });
  const { code, lines } = await command(t, ['verify-audit', join(service.stateDir, 'audit.ndjson')]);
  t.equal(code, 0, String(lines));
}

async function hold(service: ServiceProcess): Promise<RawClient> {
  const client = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  return client;
}

/** In processes of their own, each below the limit of descriptors; what they hold is idle and was used once. */
const MANY = { processes: 2, each: 9_000 };
/** Bare node:http holds ten thousand of them in about 90 MB. */
const MOST_MEGABYTES = 600;

t.test(
  '18,000 connections: bounded memory, others are served, and a stop answers what is in flight',
  async (t) => {
    const service = await ServiceProcess.running(t);
    const held = await hold(service);
    const crowds: IdleCrowd[] = [];
    t.teardown(() => {
      for (const crowd of crowds) crowd.kill();
    });
    for (let count = 0; count < MANY.processes; count += 1)
      crowds.push(await IdleCrowd.open(service.port, MANY.each));
    const most = MANY.processes * MANY.each;
    const { connections } = await service.statusWhen(({ connections }) => connections.open > most);
    t.equal(connections.idle, most, 'and one is not');
    t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);
    const megabytes = residentBytes(service.pid) / 1024 / 1024;
    t.ok(megabytes < MOST_MEGABYTES, `${megabytes} MB`);
    await assertStops(t, service, held);
  },
);

t.test('a state directory that cannot be written is named before anything is opened', async (t) => {
  const disk = SmallDisk.mount(t);
  disk.makeReadOnly();
  const service = ServiceProcess.spawn(t, { stateDir: join(disk.dir, 'state') });
  t.strictSame(await service.exited, { code: 78, signal: null });
  t.match(service.output, /STATE_DIR: want a directory that can be written/);
  t.notMatch(service.output, 'Accepting requests');
});

t.test('more connections than descriptors: a line says so, it recovers, and a stop works', async (t) => {
  const service = await ServiceProcess.running(t);
  // What `ulimit -n` would have set. Set from outside, because Node raises its own soft limit when it starts.
  need('prlimit', INSTALL.prlimit);
  const limited = spawn('prlimit', [`--pid=${service.pid}`, '--nofile=160:160']);
  const [code] = await once(limited, 'close');
  t.equal(code, 0, 'prlimit sets it');
  // The limit is taken over with the settings.
  service.signal('SIGHUP');
  await service.line('Settings reloaded');
  const held = await hold(service);
  const sockets = await crowd(t, service.port, 300, (socket) => socket.resume());
  t.match(
    await service.line('connections at once'),
    /Closed \d+ connections at once: \d+ are open, and no more than 96/,
  );
  t.equal((await service.operator('/livez')).status, 200, 'the ops server answers');
  for (const socket of sockets) socket.destroy();
  await service.statusWhen(({ connections }) => connections.open === 1);
  t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200, 'it has recovered');
  await crowd(t, service.port, 300, (socket) => socket.resume());
  await assertStops(t, service, held);
});

for (const [name, opened] of [
  ['silent connections', () => undefined],
  ['heads that never end', (socket: Socket) => socket.write('GET / HTTP/1.1\r\nHost: x\r\nX: ')],
  [
    'endless bodies that nobody reads',
    (socket: Socket) => {
      socket.write('POST /ignore/b HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n');
      socket.write(Buffer.alloc(100_000, 'x'));
    },
  ],
  [
    'readers that do not read',
    (socket: Socket) => socket.pause().write('GET /large/1 HTTP/1.1\r\nHost: x\r\n\r\n'),
  ],
  [
    'floods of heads',
    (socket: Socket) => socket.write(`GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(300_000)}\r\n\r\n`),
  ],
  ['connections that close at once', (socket: Socket) => socket.destroy()],
] as const) {
  t.test(`300 ${name}: others are served, memory is bounded, and a stop ends in its time`, async (t) => {
    const service = await ServiceProcess.running(t, {
      nodeArgs: ['--max-old-space-size=64'],
      env: { SHUTDOWN_TIMEOUT: '8' },
    });
    const held = await hold(service);
    await crowd(t, service.port, 300, (socket) => {
      opened(socket);
    });
    t.equal((await (await RawClient.open(service.port)).get('/').response()).status, 200);
    t.equal((await service.operator('/readyz')).status, 200);
    await service.stop();
    service.release('a');
    t.equal((await held.response()).status, 200);
    const { code } = await service.exited;
    // Who neither reads nor leaves may be in flight until the deadline, and is cut there.
    const patient = name === 'readers that do not read' || name === 'endless bodies that nobody reads';
    t.ok(code === 0 || (patient && code === 1), `exit ${code}`);
  });
}
