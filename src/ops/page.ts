import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Handler } from '../server/router.ts';
import { CODE } from '../version.ts';

/**
 * Puts the operator's page together from the files in `page/`: one document that loads nothing. Its policy allows this
 * script and this style, known by their hashes, and requests to this server. It cannot make markup from text
 * (trusted-types 'none' throws) and cannot be framed.
 */
export function assemblePage(): Handler {
  const style = read('page.css');
  const script = read('page.js');
  const html = Buffer.from(
    read('page.html')
      .replace('<style></style>', () => `<style>${style}</style>`)
      .replace('<script type="module"></script>', () => `<script type="module">${script}</script>`),
  );
  const headers = {
    'Content-Type': 'text/html; charset=utf-8',
    'Content-Length': html.length,
    'Content-Security-Policy': [
      "default-src 'none'",
      `script-src ${hashOf(script)}`,
      `style-src ${hashOf(style)}`,
      "connect-src 'self'",
      // For the icon, which the page draws from the state.
      'img-src data:',
      ...["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
      ...["require-trusted-types-for 'script'", "trusted-types 'none'"],
    ].join('; '),
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Permissions-Policy': 'camera=(), geolocation=(), microphone=()',
    'Cache-Control': 'no-store',
  };
  return (_request, response) => response.writeHead(200, headers).end(html);
}

function read(name: string): string {
  return readFileSync(new URL(`ops/page/${name}`, CODE), 'utf8');
}

function hashOf(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
}
