import t from 'tap';
import { headlineIs, openBrowser, openPage } from '../support/browser.ts';
import { WorkersService } from '../support/workers-service.ts';

/** A version whose start() waits until the test creates the file `go` beside it. */
const SLOW = `import { existsSync, watch } from 'node:fs';
export default {
  start: () => new Promise((resolve) => {
    const watcher = watch('.', look);
    function look() { if (existsSync('doors/go')) { watcher.close(); resolve(); } }
    look();
  }),
};\n`;

t.test('the page shows a reload while it happens, and how it ended', async (t) => {
  const browser = await openBrowser(t);
  const pool = await WorkersService.running(t, { app: 'export default { start() {} };\n' });
  const { page, wrongs } = await openPage(browser, pool.service.opsPort);
  await headlineIs(page, /^RUNNING - 0 requests in flight$/);
  t.equal(await page.locator('#workers tr').count(), 2);
  t.equal(await page.locator('#reload').textContent(), 'none yet');

  pool.rewrite(SLOW);
  pool.service.signal('SIGHUP');
  await headlineIs(page, /^RUNNING - reloading, 0 of 2 new workers ready$/);
  t.match(await page.locator('#pool-title').textContent(), 'a reload is under way');
  t.match(await page.locator('#workers').textContent(), 'starting');
  pool.open('go');
  pool.rewrite(SLOW);
  await page
    .locator('#reload')
    .filter({ hasText: /^done at/ })
    .waitFor();
  t.match(await page.locator('#pool-title').textContent(), 'generation 2');
  await headlineIs(page, /^RUNNING - 0 requests in flight$/);

  pool.rewrite(`throw new Error('no <b>database</b>');\n`);
  pool.service.signal('SIGHUP');
  await page
    .locator('#reload')
    .filter({ hasText: /^REFUSED at .*no <b>database<\/b>/ })
    .waitFor();
  t.match(await page.locator('#pool-title').textContent(), 'generation 2');
  t.strictSame(wrongs, []);
});

t.test('one process: a reload that is refused is shown with its reason', async (t) => {
  const browser = await openBrowser(t);
  const pool = await WorkersService.running(t, { workers: 0, dotenv: '' });
  const { page } = await openPage(browser, pool.service.opsPort);
  await headlineIs(page, /^RUNNING/);
  t.notOk(await page.locator('#pool').isVisible(), 'there are no workers to show');
  pool.setDotenv('RETRY_AFTER=soon\n');
  pool.service.signal('SIGHUP');
  await page
    .locator('#reload')
    .filter({ hasText: /^REFUSED at .*RETRY_AFTER: want/ })
    .waitFor();
});
