import type { Page } from 'playwright-core';
import t, { type Test } from 'tap';
import { headlineIs, openBrowser, openPage } from '../support/browser.ts';
import { TEST_APP } from '../support/service-process.ts';
import { WorkersService } from '../support/workers-service.ts';

/** Boxes whose content is wider than they are: a reader would have to scroll to see a column. */
function clipped(page: Page): Promise<string[]> {
  return page.evaluate(`[...document.querySelectorAll('html, header, .card, .scroll')]
    .filter((box) => box.scrollWidth > box.clientWidth + 1)
    .map((box) => box.id || box.className || box.tagName)`);
}

/** The widths of the lines that a text is broken into. */
function linesOf(page: Page, id: string): Promise<number[]> {
  return page.evaluate(`(() => {
    const range = document.createRange();
    range.selectNodeContents(document.getElementById('${id}'));
    return [...range.getClientRects()].map(({ width }) => width);
  })()`);
}

async function assertNoOrphan(t: Test, page: Page): Promise<void> {
  const lines = await linesOf(page, 'headline');
  t.ok(Math.min(...lines) > Math.max(...lines) / 2, `no word stands alone: ${lines.join(', ')}`);
}

for (const width of [390, 1280]) {
  t.test(`at ${width} px nothing is clipped, and the headline has no word alone`, async (t) => {
    const browser = await openBrowser(t);
    const env = { ADMIN_TOKEN: 'only-for-this-test-1' };
    const pool = await WorkersService.running(t, { env });
    const { page, wrongs } = await openPage(browser, pool.service.opsPort, {
      viewport: { width, height: 844 },
    });
    await headlineIs(page, /^RUNNING - 0 requests in flight$/);
    t.equal(await page.locator('#more').textContent(), 'None.');
    t.notOk(await page.locator('#request-table').isVisible(), 'an empty table is one line');
    t.match(await page.locator('#who').textContent(), `${pool.service.port} · `, 'the address');
    t.match(await page.locator('#who').textContent(), 'workers-app.mjs', 'and the application');

    (await pool.connect()).get(`/hold/${'a-long-name-'.repeat(12)}`);
    await headlineIs(page, /^RUNNING - 1 request in flight$/);
    const { in_flight } = await pool.service.statusWhen(({ in_flight }) => in_flight.oldest.length === 1);
    t.equal(await page.locator('#requests .id').textContent(), in_flight.oldest[0]?.id);
    t.strictSame(await clipped(page), [], 'running');
    await assertNoOrphan(t, page);
    await pool.service.stop();
    await headlineIs(page, /^STOPPING - waiting for 1 request/);
    t.strictSame(await clipped(page), [], 'stopping');
    await assertNoOrphan(t, page);
    pool.service.signal('SIGINT');
    pool.service.signal('SIGINT');
    await headlineIs(page, /^STOPPED - 1 request cut/);
    t.notOk(await page.locator('#workers').isVisible(), 'no table of workers that have ended');
    t.strictSame(await clipped(page), [], 'stopped');
    t.strictSame(wrongs, []);
  });
}

t.test('charts side by side have one baseline, and each kind of answer a line of its own', async (t) => {
  const browser = await openBrowser(t);
  const pool = await WorkersService.running(t, { workers: 0 });
  for (const colorScheme of ['light', 'dark'] as const) {
    const { page } = await openPage(browser, pool.service.opsPort, {
      colorScheme,
      viewport: { width: 1280, height: 900 },
    });
    await headlineIs(page, /^RUNNING/);
    const [flight, rate] = await Promise.all(
      ['flight', 'rate'].map((id) => page.locator(`#${id}`).boundingBox()),
    );
    t.ok(flight !== null && flight !== undefined && flight.height > 50);
    t.equal(flight?.y, rate?.y);
    t.equal(flight?.height, rate?.height);
    const strokes = await page.evaluate<{ stroke: string; strokeDasharray: string }[]>(
      `['2xx', '4xx', '5xx', 'refused', 'unanswered'].map((name) => {
        const { stroke, strokeDasharray } = getComputedStyle(document.getElementById('rate-' + name));
        return { stroke, strokeDasharray };
      })`,
    );
    for (const key of ['stroke', 'strokeDasharray'] as const)
      t.equal(new Set(strokes.map((one) => one[key])).size, 5, `${key} tells them apart`);
  }
});

t.test(
  'an idle audit log does not look like a fault, and a stall shows as the most, not as the p99',
  async (t) => {
    const browser = await openBrowser(t);
    const pool = await WorkersService.running(t, { workers: 1 });
    const { page } = await openPage(browser, pool.service.opsPort);
    await headlineIs(page, /^RUNNING/);
    t.match(
      await page.locator('#audit').textContent(),
      /^batched, all on disk, the last record at \d\d:\d\d:\d\d; chain/,
    );
    await pool.get('/block/500');
    const { event_loop } = await pool.service.statusWhen(
      ({ event_loop }) => event_loop !== null && event_loop.delay_max_ms >= 400,
    );
    t.ok(event_loop !== null && event_loop.delay_p99_ms < event_loop.delay_max_ms);
    await page
      .locator('#loop')
      .filter({ hasText: /^in the last minute late by [\d.]+ ms \(p99\), at most by \d{3,}/ })
      .waitFor();
  },
);

t.test('the page is readable while the service starts', async (t) => {
  const browser = await openBrowser(t);
  const app = `const { default: app } = await import(${JSON.stringify(TEST_APP)});
    await new Promise((resolve) => process.once('message', resolve));
    export default app;`;
  const pool = WorkersService.spawn(t, { workers: 0, app });
  const line = await pool.service.line('Ops server listening on');
  const { page } = await openPage(browser, Number(/:(\d+)$/.exec(line)?.[1]), {
    viewport: { width: 390, height: 844 },
  });
  await headlineIs(page, /^STARTING - not accepting requests yet$/);
  t.match(await page.locator('#who').textContent(), /^not listening yet · app\.mjs · /);
  t.strictSame(await clipped(page), []);
  pool.service.release('a');
  await headlineIs(page, /^RUNNING/);
  t.match(await page.locator('#who').textContent(), /^http:\/\/127\.0\.0\.1:\d+ · app\.mjs · /);
});
