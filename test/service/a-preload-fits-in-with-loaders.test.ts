import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { assertRefused, holdDrain } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess, type SpawnOptions, tempDir } from '../support/service-process.ts';

const REGISTER = join(ROOT, 'dist/register.js');
const TSX = join(ROOT, 'node_modules/tsx/dist');
const OWN_SERVER = join(ROOT, 'test/fixtures/own-server.mjs');

t.test('tsx', async (t) => {
  const cwd = tempDir(t);
  const server = join(cwd, 'server.ts');
  writeFileSync(
    server,
    `import { createServer } from 'node:http';
    const port: number = Number(process.env.PORT);
    createServer((request, response) => {
      if (request.url === '/') response.end('hello');
      else setTimeout(() => response.end('whole'), 1_500);
    }).listen(port, '127.0.0.1');`,
  );
  const ways: Readonly<Record<string, SpawnOptions>> = {
    'as a loader': {
      program: server,
      args: [],
      nodeArgs: ['--import', join(TSX, 'loader.mjs'), '--import', REGISTER],
    },
    // Its command kills a child that does not answer a signal within 30 ms.
    'as a command': {
      program: join(TSX, 'cli.mjs'),
      args: [server],
      env: { NODE_OPTIONS: `--import=${REGISTER}` },
    },
  };
  for (const [way, options] of Object.entries(ways)) {
    await t.test(way, async (t) => {
      const service = await ServiceProcess.running(t, options);
      const idle = (await RawClient.open(service.port)).get('/');
      t.equal((await idle.response()).body, 'hello');
      const held = (await RawClient.open(service.port)).get('/slow');
      await service.statusWhen(({ in_flight }) => in_flight.count === 1);
      await service.stop();
      assertRefused(t, await idle.get('/').response());
      t.equal((await held.response()).body, 'whole');
      t.strictSame(await service.exited, { code: 0, signal: null });
      t.match(service.report(), { completed: 1, cut: [] });
    });
  }
});

t.test('a launcher that completes the environment and takes standard output over, as PM2 does', async (t) => {
  const cwd = tempDir(t);
  const launcher = join(cwd, 'launcher.mjs');
  writeFileSync(
    launcher,
    `const { write } = process.stdout;
    process.stdout.write = (text, ...rest) => write.call(process.stdout, String(text).replace(/^/, 'launcher: '), ...rest);
    Object.assign(process.env, { RETRY_AFTER: '17', SHUTDOWN_TIMOUT: '5' });
    await import(${JSON.stringify(OWN_SERVER)});`,
  );
  const service = await ServiceProcess.running(t, {
    ...{ program: launcher, args: [], nodeArgs: ['--import', REGISTER] },
  });
  t.match(service.output, 'launcher: INFO: Service state: RUNNING');
  t.match(service.output, 'SHUTDOWN_TIMOUT is not a setting; did you mean SHUTDOWN_TIMEOUT?');
  const drain = await holdDrain(service);
  await service.stop();
  const refused = await (await RawClient.open(service.port)).get('/').response();
  t.equal(refused.headers['retry-after'], '17');
  service.release('drain');
  await drain.finish(t);
  t.strictSame(readdirSync(cwd), ['launcher.mjs']);
});
