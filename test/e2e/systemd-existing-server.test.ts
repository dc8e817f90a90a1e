import t from 'tap';
import { SystemdBox } from '../support/systemd-box.ts';

const UNIT = 'shop.service';

t.test('a unit of Type=notify with the preload is ready, drains, and says so', async (t) => {
  const box = await SystemdBox.boot(t);
  await box.sh('mkdir -p /opt/shop && mkfifo /opt/shop/gate');
  await box.write(
    '/opt/shop/server.mjs',
    `import { readFile } from 'node:fs/promises';
    import { createServer } from 'node:http';
    createServer(async (request, response) => {
      response.end(request.url === '/held' ? await readFile('/opt/shop/gate') : 'hello');
    }).listen(8000);`,
  );
  await box.write(
    `/etc/systemd/system/${UNIT}`,
    `[Service]
Type=notify
Environment=NODE_OPTIONS=--import=/checkout/dist/register.js
Environment=OPS_PORT=off
StateDirectory=shop
WorkingDirectory=/opt/shop
ExecStart=${process.execPath} server.mjs
KillMode=mixed
TimeoutStopSec=40
RestartPreventExitStatus=75 78
`,
  );
  await box.ok('systemctl', 'daemon-reload');
  t.match(await box.run('systemctl', 'start', UNIT), { code: 0, stderr: '' });
  t.match(await box.curl('/'), { code: 0, stdout: 'hello' }, 'it is ready when the start comes back');
  t.match(await box.property('StatusText', UNIT), 'Serving');
  const held = box.curl('/held');
  // A FIFO opens for a writer when the handler has opened it for reading.
  const writer = box.spawn('sh', '-c', 'exec 3>/opt/shop/gate; echo open; read -r line; echo whole >&3');
  await writer.line('open');
  const stop = box.run('systemctl', 'stop', UNIT);
  await box.untilProperty('ActiveState', 'deactivating', UNIT);
  while (!(await box.property('StatusText', UNIT)).startsWith('Draining: 1 in flight'));
  t.match(await box.curl('/'), { stdout: /"fail_safe":true/ });
  writer.child.stdin?.end('\n');
  t.match(await held, { code: 0, stdout: 'whole\n' });
  t.match(await stop, { code: 0 });
  t.equal(await box.property('Result', UNIT), 'success');
  t.match(await box.sh('cat /var/lib/shop/last-shutdown.json'), '"completed":1');
});
