import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import t from 'tap';
import { headlineIs, openBrowser, openPage } from '../support/browser.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

async function freePort(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return String(port);
}

for (const WORKERS of ['0', '1']) {
  t.test(`the page says that the service is gone, and comes back with it (WORKERS=${WORKERS})`, async (t) => {
    const browser = await openBrowser(t);
    const stateDir = tempDir(t);
    const env = { OPS_PORT: await freePort(), WORKERS };
    const first = await ServiceProcess.running(t, { env, stateDir });
    const { page, wrongs } = await openPage(browser, first.opsPort);
    await headlineIs(page, /^RUNNING/);
    await first.stop();
    await first.exited;
    await headlineIs(page, /^STOPPED - cleanly, nothing was in flight$/);
    t.match(
      await page.locator('#subline').textContent(),
      /^Gone at \d\d:\d\d:\d\d, .*when the service is back/,
    );
    t.match(await page.locator('#who').textContent(), `process ${first.pid}`);
    t.equal(await page.locator('body').getAttribute('data-state'), 'stopped');

    const second = await ServiceProcess.running(t, { env, stateDir });
    await headlineIs(page, /^RUNNING/);
    t.match(await page.locator('#who').textContent(), `process ${second.pid}`);
    t.match(await page.locator('#last').textContent(), /^clean: SIGTERM, /);

    second.signal('SIGKILL');
    await headlineIs(page, /^GONE - the service does not answer$/);
    t.match(await page.locator('#spoken').textContent(), /^GONE .*since \d\d:\d\d:\d\d$/);
    const third = await ServiceProcess.running(t, { env, stateDir });
    await headlineIs(page, /^RUNNING/);
    t.match(await page.locator('#last').textContent(), new RegExp(`^UNCLEAN: process ${second.pid}`));
    t.strictSame(wrongs, []);
    third.signal('SIGKILL');
  });
}
