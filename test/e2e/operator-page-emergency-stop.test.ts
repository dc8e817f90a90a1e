import type { Page } from 'playwright-core';
import t from 'tap';
import { headlineIs, openBrowser, openPage } from '../support/browser.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';
import { WorkersService } from '../support/workers-service.ts';

const TOKEN = 'only-for-this-test-1';
const HOSTILE = '<img src=x onerror=alert(1)> \u202eesrever';

async function told(page: Page, wanted: RegExp): Promise<void> {
  await page.locator('#outcome').filter({ hasText: wanted }).waitFor();
}

for (const workers of [0, 2]) {
  t.test(`emergency stop from the page, ${workers} workers`, async (t) => {
    const browser = await openBrowser(t);
    const pool = await WorkersService.running(t, { workers, env: { ADMIN_TOKEN: TOKEN } });
    const { service } = pool;
    const { page, wrongs } = await openPage(browser, service.opsPort);
    const { page: other } = await openPage(browser, service.opsPort);
    (await RawClient.open(service.port)).get('/hold/a');
    await headlineIs(page, /^RUNNING - 1 request in flight$/);

    // By keyboard alone.
    await page.locator('#open').focus();
    await page.keyboard.press('Enter');
    await page.keyboard.type(HOSTILE);
    await page.keyboard.press('Tab');
    await page.keyboard.type('master');
    await page.keyboard.press('Tab');
    await page.keyboard.type('this-is-the-wrong-one');
    await page.keyboard.press('Enter');
    await told(page, /^Not sent: type master-agent to confirm/);
    t.notOk(service.output.includes("Administrator's route used"), 'nothing was sent');

    await page.locator('#name').fill('master-agent');
    await page.keyboard.press('Enter');
    await told(page, /^Refused \(403\): The token is wrong\.$/);
    t.equal(await page.locator('#token').inputValue(), '', 'the token is not kept');
    await headlineIs(page, /^RUNNING/);

    await page.locator('#token').fill(TOKEN);
    await page.locator('#send').press('Enter');
    await told(page, /^Done: it is locked/);
    t.ok(await page.locator('#send').isDisabled(), 'once is enough');
    t.ok(await page.locator('#reason').isDisabled());
    await headlineIs(page, /^EMERGENCY STOP - waiting for 1 request, \d+ s left$/);
    await headlineIs(other, /^EMERGENCY STOP/);
    t.match(
      await other.locator('#order').textContent(),
      /by 127\.0\.0\.1: <img src=x onerror=alert\(1\)> \\u\{202e\}esrever$/,
    );
    const kept = await page.evaluate<unknown[]>(
      "[document.cookie, localStorage.length, document.documentElement.outerHTML.includes('only-for-this-test')]",
    );
    t.strictSame(kept, ['', 0, false]);
    await page.keyboard.press('Escape');
    t.notOk(await page.locator('#dialog').isVisible());
    t.equal(await page.locator('#name').inputValue(), '');

    pool.open('a');
    for (const one of [page, other]) {
      await headlineIs(one, /^LATCHED - cleanly, 1 request completed, none cut$/);
      t.equal(await one.locator('body').getAttribute('data-state'), 'latched');
      t.match(
        await one.locator('#unlatch').textContent(),
        /stays down until .*master-agent unlatch --reason "/,
      );
      t.notMatch(await one.locator('#subline').textContent(), 'back', 'it does not come back by itself');
      t.ok(await one.locator('#open').isDisabled());
    }
    await service.exited;
    t.strictSame(wrongs, []);
  });
}

t.test('without a token there is no dialog, and the page says which setting opens it', async (t) => {
  const browser = await openBrowser(t);
  const pool = await WorkersService.running(t, { workers: 0 });
  const { page } = await openPage(browser, pool.service.opsPort);
  await headlineIs(page, /^RUNNING/);
  t.ok(await page.locator('#open').isDisabled());
  t.equal(
    await page.locator('#closed').textContent(),
    'Emergency stop is closed: set ADMIN_TOKEN or ADMIN_TOKEN_FILE.',
  );
});

t.test('an open dialog is disarmed when the service is gone, and armed when it is back', async (t) => {
  const browser = await openBrowser(t);
  const env = { ADMIN_TOKEN: TOKEN };
  const pool = await WorkersService.running(t, { workers: 0, env });
  const { opsPort, stateDir } = pool.service;
  const { page } = await openPage(browser, opsPort);
  await headlineIs(page, /^RUNNING/);
  await page.locator('#open').click();
  t.notOk(await page.locator('#send').isDisabled());
  pool.service.signal('SIGKILL');
  await told(page, /^The service does not answer\.$/);
  t.ok(await page.locator('#send').isDisabled());
  t.notOk(await page.locator('#unlatch').isVisible(), 'nothing keeps it down');
  await ServiceProcess.running(t, { env: { ...env, OPS_PORT: String(opsPort) }, stateDir });
  await headlineIs(page, /^RUNNING/);
  t.notOk(await page.locator('#send').isDisabled());
});
