import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import { blocksOf, installInto } from '../support/documents.ts';
import { assertRefused } from '../support/drain.ts';
import { INSTALL, need } from '../support/need.ts';
import { RawClient } from '../support/raw-client.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const PACKAGES = ['master-agent', 'express', 'fastify', 'koa', 'hono', '@hono/node-server', 'ws'];

/** Starts a server of the document as a reader does. */
function started(t: Test, file: string, text: string): Promise<ServiceProcess> {
  const cwd = tempDir(t);
  installInto(cwd, PACKAGES);
  writeFileSync(join(cwd, file), text);
  const nodeArgs = text.includes('failSafe(') ? [] : ['--import', 'master-agent/register'];
  return ServiceProcess.running(t, { program: file, args: [], nodeArgs, cwd });
}

/** Stops it with a request in flight: that is answered whole, what comes meanwhile is refused, and it exits 0. */
async function stopsWhole(t: Test, service: ServiceProcess): Promise<void> {
  const idle = await RawClient.open(service.port);
  t.equal((await idle.get('/').response()).body, 'done\n');
  const client = (await RawClient.open(service.port)).get('/');
  if (service.opsPort > 0) await service.statusWhen(({ in_flight }) => in_flight.count > 0);
  await service.stop();
  assertRefused(t, await (await RawClient.open(service.port)).get('/').response());
  assertRefused(t, await idle.get('/').response());
  const { status, body } = await client.response();
  t.strictSame([status, body], [200, 'done\n']);
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(service.report(), { cut: [], rejected: 2 });
}

for (const { note, text } of blocksOf('docs/existing-server.md').filter(({ note }) =>
  note.endsWith('.mjs'),
)) {
  t.test(`${note} of the document stops whole`, async (t) => {
    const service = await started(t, note, text);
    if (note !== 'ws.mjs') {
      await stopsWhole(t, service);
      return;
    }
    const socket = new WebSocket(`ws://127.0.0.1:${service.port}`);
    const closed = new Promise<number>((resolve) => socket.once('close', resolve));
    await new Promise((resolve) => socket.once('open', resolve));
    const echo = new Promise((resolve) => socket.once('message', (data) => resolve(String(data))));
    socket.send('hello');
    t.equal(await echo, 'hello');
    await stopsWhole(t, service);
    t.equal(await closed, 1012, 'it was told at the lock');
  });
}

t.test('an https server stops whole', async (t) => {
  need('openssl', INSTALL.openssl);
  const cwd = tempDir(t);
  const subject = ['-subj', '/CN=localhost', '-nodes', '-days', '2', '-newkey', 'rsa:2048'];
  execFileSync('openssl', ['req', '-x509', ...subject, '-keyout', 'key.pem', '-out', 'cert.pem'], {
    ...{ cwd, stdio: 'ignore' },
  });
  writeFileSync(
    join(cwd, 'server.mjs'),
    `import { readFileSync } from 'node:fs';
    import { createServer } from 'node:https';
    const options = { key: readFileSync('key.pem'), cert: readFileSync('cert.pem') };
    createServer(options, (request, response) => setTimeout(() => response.end('done'), 500)).listen(0, '127.0.0.1', function () {
      console.log('own port ' + this.address().port);
    });`,
  );
  const nodeArgs = ['--import', join(ROOT, 'dist/register.js')];
  const service = ServiceProcess.spawn(t, { program: 'server.mjs', args: [], nodeArgs, cwd });
  const port = Number((await service.line('own port')).split(' ').at(-1));
  const ask = () =>
    new Promise<[number | undefined, string]>((resolve, reject) => {
      const asked = request(
        { port, host: '127.0.0.1', rejectUnauthorized: false, agent: false },
        (answer) => {
          let body = '';
          answer.setEncoding('utf8').on('data', (part) => {
            body += part;
          });
          answer.on('end', () => resolve([answer.statusCode, body]));
        },
      );
      asked.on('error', reject).end();
    });
  await service.line(`Accepting requests on https://127.0.0.1:${port}`);
  service.opsPort = Number(/:(\d+)$/.exec(await service.line('Ops server'))?.[1]);
  const held = ask();
  await service.statusWhen(({ in_flight }) => in_flight.count === 1);
  await service.stop();
  const [status, body] = await ask();
  t.equal(status, 503);
  t.match(body, '"fail_safe":true');
  t.strictSame(await held, [200, 'done']);
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(service.report(), { cut: [], completed: 1, rejected: 1, in_flight_at_lock: 1 });
});
