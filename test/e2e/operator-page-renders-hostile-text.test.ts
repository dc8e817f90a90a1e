import t from 'tap';
import { escapeControl } from '../../src/platform/escape-control.ts';
import { headlineIs, openBrowser, openPage } from '../support/browser.ts';
import { RawClient } from '../support/raw-client.ts';
import { WorkersService } from '../support/workers-service.ts';

const APP = `export default { routes: (router) => router.mount('/', () => undefined) };\n`;

t.test('a path is text: it is no markup, turns nothing round, and does not break the page', async (t) => {
  const browser = await openBrowser(t);
  const { service } = await WorkersService.running(t, { workers: 0, app: APP });
  const paths = [
    '/<script>alert(1)</script>',
    `/"><img/src=x/onerror=alert(2)>`,
    '/%E2%80%AEgnp.exe%3Cb%3E',
    `/${'x'.repeat(8_000)}`,
  ];
  for (const path of paths)
    (await RawClient.open(service.port)).write(
      Buffer.from(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`, 'latin1'),
    );
  await service.statusWhen(({ in_flight }) => in_flight.count === paths.length);
  for (const colorScheme of ['light', 'dark'] as const) {
    const { page, wrongs } = await openPage(browser, service.opsPort, {
      colorScheme,
      viewport: { width: 390, height: 800 },
    });
    await headlineIs(page, new RegExp(`^RUNNING - ${paths.length} requests in flight$`));
    const shown = await page.locator('#requests .path').allTextContents();
    t.strictSame([...shown].sort(), paths.map((path) => escapeControl(path)).sort());
    t.equal(await page.locator('#requests script, #requests img').count(), 0);
    t.ok(
      shown.every((text) => text.length < 300),
      'and each has an end',
    );
    t.notOk(
      await page.evaluate('document.documentElement.scrollWidth > innerWidth'),
      'nothing is wider than a phone',
    );
    t.strictSame(wrongs, []);
    await page.context().close();
  }
});

t.test('no character of a client steers what shows it', async (t) => {
  t.equal(escapeControl('/a b/ü/日本'), '/a b/ü/日本');
  t.equal(
    escapeControl('\u202ex\u2066\u200b\x1b[31m\x9b\n\u2028\ud800'),
    '\\u{202e}x\\u{2066}\\u{200b}\\u{1b}[31m\\u{9b}\\u{a}\\u{2028}\\u{d800}',
  );
  t.equal(escapeControl('x'.repeat(5), 3), 'xxx… (5 characters)');
});
