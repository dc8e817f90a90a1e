import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Page } from 'playwright-core';
import t, { type Test } from 'tap';
import { headlineIs, openBrowser, openPage } from '../support/browser.ts';
import { RawClient } from '../support/raw-client.ts';
import { WorkersService } from '../support/workers-service.ts';

/** Without a token there is no dialog. */
const ADMIN = { ADMIN_TOKEN: 'only-for-this-test-1' };
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

async function assertAccessible(t: Test, page: Page, what: string): Promise<void> {
  // A blinking lamp is looked at in whatever moment the check comes to it.
  await page.addStyleTag({
    content: '*, *::before { animation: none !important; transition: none !important }',
  });
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { axe } = globalThis as unknown as {
      axe: { run(): Promise<{ violations: unknown[]; passes: unknown[] }> };
    };
    const { violations, passes } = await axe.run();
    return { violations, passes: passes.length };
  });
  t.strictSame(found.violations, [], what);
  t.ok(found.passes > 20, 'and much was looked at');
}

for (const colorScheme of ['light', 'dark'] as const) {
  t.test(`axe finds nothing in any state, ${colorScheme}`, async (t) => {
    const browser = await openBrowser(t);
    const pool = await WorkersService.running(t, { env: ADMIN });
    // The page's policy lets nothing in, not even the check; its script can be let in by the browser alone.
    const { page } = await openPage(browser, pool.service.opsPort, { colorScheme, bypassCSP: true });
    (await RawClient.open(pool.port)).get('/hold/a');
    await headlineIs(page, /^RUNNING - 1 request in flight$/);
    await assertAccessible(t, page, 'running');
    await page.locator('#open').click();
    await assertAccessible(t, page, 'the dialog');
    await page.keyboard.press('Escape');
    await pool.service.stop();
    await headlineIs(page, /^STOPPING/);
    await assertAccessible(t, page, 'stopping');
    pool.service.signal('SIGKILL');
    await headlineIs(page, /^GONE/);
    await assertAccessible(t, page, 'gone');
    pool.open('a');
  });
}

t.test('who wants no motion gets none, and everybody reaches all by keyboard', async (t) => {
  const browser = await openBrowser(t);
  const pool = await WorkersService.running(t, { env: ADMIN });
  const { page } = await openPage(browser, pool.service.opsPort, { reducedMotion: 'reduce' });
  const { page: moving } = await openPage(browser, pool.service.opsPort, { reducedMotion: 'no-preference' });
  (await RawClient.open(pool.port)).get('/hold/a');
  await headlineIs(page, /^RUNNING - 1/);
  await page.keyboard.press('Tab');
  t.equal(await page.evaluate<string>('document.activeElement.id'), 'open');
  await page.keyboard.press('Enter');
  const reached: string[] = [];
  for (let step = 0; step < 5; step += 1) {
    reached.push(await page.evaluate<string>('document.activeElement.id'));
    await page.keyboard.press('Tab');
  }
  t.strictSame(reached, ['reason', 'name', 'token', 'close', 'send']);
  await page.keyboard.press('Escape');
  t.equal(await page.evaluate<string>('document.activeElement.id'), 'open', 'back where it was');
  await pool.service.stop();
  const animations = (one: Page): Promise<number> => one.evaluate('document.getAnimations().length');
  await headlineIs(page, /^STOPPING/);
  await headlineIs(moving, /^STOPPING/);
  t.equal(await animations(page), 0);
  t.ok((await animations(moving)) > 0);
  pool.open('a');
});
