import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { MAIN, ServiceProcess } from '../support/service-process.ts';

const ESCAPE = '\x1b';

t.test('status --watch tells what changes, waits for a service that is gone, and ends with 0', async (t) => {
  const service = await ServiceProcess.running(t);
  const { stateDir } = service;
  const watch = ServiceProcess.spawn(t, { args: ['status', '--watch'], stateDir });
  const json = ServiceProcess.spawn(t, { args: ['status', '--watch', '--json'], stateDir });
  t.equal(await watch.line('Service running'), 'Service running: 0 in flight');
  await json.line('"state":"running"');
  const busy = (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  await service.stop();
  t.match(
    await watch.line('Draining'),
    /^Draining: 1 in flight, \d+ s left; oldest GET \/hold\/a, \d+\.\d s$/,
  );
  service.release('a');
  t.equal((await busy.response()).status, 200);
  t.equal(await watch.line('STOPPED'), 'STOPPED - cleanly, 1 request completed, none cut');
  t.match(await watch.line('No answer'), /^No answer from the ops server at http:.* since \d\d:\d\d:\d\d$/);
  await service.exited;

  const again = await ServiceProcess.running(t, { stateDir });
  await watch.until(
    () => (watch.lines.filter((line) => line.startsWith('Service running')).length > 1 ? true : undefined),
    'the service again',
  );
  await json.until(() => json.lines.find((line) => JSON.parse(line).pid === again.pid), 'its status');
  t.ok(json.lines.some((line) => JSON.parse(line).state === 'stopping'));
  watch.signal('SIGINT');
  json.signal('SIGTERM');
  t.strictSame(await watch.exited, { code: 0, signal: null });
  t.strictSame(await json.exited, { code: 0, signal: null });
  t.notOk(watch.output.includes(ESCAPE), 'no terminal, no escape sequences');
});

t.test('on a terminal it is redrawn in place', async (t) => {
  const service = await ServiceProcess.running(t);
  (await RawClient.open(service.port)).get('/hold/a');
  await service.line('holding a');
  const terminal = spawn(
    '/usr/bin/script',
    ['-qec', `exec ${process.execPath} ${MAIN} status --watch`, '/dev/null'],
    {
      env: { ...process.env, STATE_DIR: service.stateDir },
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  t.teardown(() => terminal.kill('SIGKILL'));
  // Written out, so that it can be looked for.
  let shown = '';
  terminal.stdout.on('data', (chunk) => {
    shown += String(chunk).replaceAll(ESCAPE, 'ESC');
  });
  const until = async (wanted: RegExp): Promise<void> => {
    while (!wanted.test(shown)) {
      await once(terminal.stdout, 'data');
    }
  };
  await until(
    /RUNNING - 1 request in flight\r\nmaster-agent [\s\S]*GET \/hold\/a[\s\S]*ESC\[\d+A\rESC\[JRUNNING/,
  );
  await service.stop();
  await until(/ESC\[JSTOPPING - waiting for 1 request, \d+ s left\r\n/);
  terminal.stdin.write('\x03');
  const [code] = await once(terminal, 'exit');
  t.equal(code, 0, `Ctrl-C ends it; on the terminal: ${shown.slice(-1000)}`);
  service.release('a');
});
