import { existsSync } from 'node:fs';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import type { Test } from 'tap';
import { INSTALL } from './need.ts';

/** A machine's own Chromium; nothing is downloaded. */
const PATHS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const EXECUTABLE = PATHS.find((path) => existsSync(path));

/** What a page has done that it must not: errors of its script, breaches of its policy, requests to anybody else. */
export interface Watched {
  readonly page: Page;
  readonly wrongs: string[];
}

/** A real browser, ended with the test. @throws Error when none is installed */
export async function openBrowser(t: Test): Promise<Browser> {
  if (EXECUTABLE === undefined)
    throw new Error(`There is no Chromium at ${PATHS.join(', ')}: ${INSTALL.chromium}`);
  const browser = await chromium.launch({
    executablePath: EXECUTABLE,
    // Chromium refuses its sandbox to root, and a container's /dev/shm is too small for it.
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
  });
  t.teardown(() => browser.close());
  return browser;
}

/** Opens the operator's page as somebody would, and notes whatever is not as it should be. */
export async function openPage(
  browser: Browser,
  opsPort: number,
  options: BrowserContextOptions = {},
): Promise<Watched> {
  const context = await browser.newContext({ viewport: { width: 1100, height: 900 }, ...options });
  const page = await context.newPage();
  const wrongs: string[] = [];
  page.on('pageerror', (error) => wrongs.push(`error: ${error.message}`));
  page.on('dialog', (dialog) => {
    wrongs.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on('console', (message) => {
    if (/Content Security Policy|Trusted/i.test(message.text())) wrongs.push(`policy: ${message.text()}`);
  });
  const own = `http://127.0.0.1:${opsPort}/`;
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(own) && !url.startsWith('data:')) wrongs.push(`request: ${url}`);
  });
  await page.goto(own);
  return { page, wrongs };
}

/** Resolves when the page's headline is so. */
export async function headlineIs(page: Page, wanted: RegExp): Promise<string> {
  const headline = page.locator('#headline').filter({ hasText: wanted });
  await headline.waitFor({ timeout: 60_000 });
  return (await headline.textContent()) ?? '';
}
