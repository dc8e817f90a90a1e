import t, { type Test } from 'tap';
import { headlineIs, openBrowser, openPage } from '../support/browser.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';
import { WorkersService } from '../support/workers-service.ts';

/** A service whose handlers wait under `/hold/NAME`, alone or with workers. */
interface Held {
  readonly service: ServiceProcess;
  release(name: string): void;
}

const SHAPES: Readonly<Record<string, (t: Test, env: Record<string, string>) => Promise<Held>>> = {
  'one process': async (t, env) => {
    const service = await ServiceProcess.running(t, { env });
    return { service, release: (name) => service.release(name) };
  },
  'a supervisor': async (t, env) => {
    const pool = await WorkersService.running(t, { env });
    return { service: pool.service, release: (name) => pool.open(name) };
  },
};

for (const [shape, start] of Object.entries(SHAPES)) {
  t.test(`${shape}: the page says what it does, what blocks it, and how it ended`, async (t) => {
    const browser = await openBrowser(t);
    const { service, release } = await start(t, {});
    const { page, wrongs } = await openPage(browser, service.opsPort);
    await headlineIs(page, /^RUNNING - 0 requests in flight$/);
    const lamp = page.locator('body');
    t.equal(await lamp.getAttribute('data-state'), 'running');

    const clients = await Promise.all(['a', 'b'].map(() => RawClient.open(service.port)));
    for (const [index, client] of clients.entries()) client.get(`/hold/${index}?secret=1`);
    await headlineIs(page, /^RUNNING - 2 requests in flight$/);
    t.ok(await page.locator('#flight path').getAttribute('d'), 'and there is a line');

    await service.stop();
    const headline = await headlineIs(page, /^STOPPING - waiting for 2 requests/);
    t.match(headline, /^STOPPING - waiting for 2 requests, (30|2\d) s left$/);
    t.equal(await lamp.getAttribute('data-state'), 'stopping');
    t.match(await page.title(), /^STOPPING · /);
    t.strictSame((await page.locator('#requests .path').allTextContents()).sort(), ['/hold/0', '/hold/1']);
    t.match(await page.locator('#spoken').textContent(), /^STOPPING - waiting for 2 requests/);
    const age = await page.locator('#requests .number').first().textContent();
    // It grows, event by event.
    await page
      .locator('#requests .number')
      .first()
      .filter({ hasNotText: age ?? '' })
      .waitFor();

    release('0');
    await headlineIs(page, /^STOPPING - waiting for 1 request, \d+ s left$/);
    t.equal(await page.locator('#left-label').textContent(), 'In flight: 1 of 2 left');
    release('1');
    await headlineIs(page, /^STOPPED - cleanly, 2 requests completed, none cut$/);
    t.strictSame(await service.exited, { code: 0, signal: null });
    t.match(await page.locator('#subline').textContent(), /^Gone at \d\d:\d\d:\d\d/);
    t.strictSame(wrongs, []);
  });

  t.test(`${shape}: the page names what the deadline has cut`, async (t) => {
    const browser = await openBrowser(t);
    const { service } = await start(t, { SHUTDOWN_TIMEOUT: '2' });
    const { page, wrongs } = await openPage(browser, service.opsPort);
    (await RawClient.open(service.port)).get('/hang');
    await headlineIs(page, /^RUNNING - 1 request in flight$/);
    service.signal('SIGTERM');
    await headlineIs(page, /^STOPPING - waiting for 1 request, [12] s left$/);
    await headlineIs(page, /^STOPPED - 1 request cut, 0 completed$/);
    t.match(await page.locator('#last').textContent(), /^exit 1: SIGTERM, .*1 cut: GET \/hang after \d/);
    t.strictSame(await service.exited, { code: 1, signal: null });
    t.strictSame(wrongs, []);
  });
}

t.test('a lame duck is seen before the lock', async (t) => {
  const browser = await openBrowser(t);
  const service = await ServiceProcess.running(t, { env: { SHUTDOWN_DELAY: '60' } });
  const { page } = await openPage(browser, service.opsPort);
  await headlineIs(page, /^RUNNING/);
  service.signal('SIGTERM');
  await headlineIs(page, /^LAME DUCK - still serving 0 requests, locks in \d+ s$/);
  t.equal(await page.locator('body').getAttribute('data-state'), 'duck');
});
