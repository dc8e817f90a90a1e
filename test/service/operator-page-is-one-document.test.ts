import { createHash } from 'node:crypto';
import t from 'tap';
import { running } from '../support/embedded-service.ts';

t.test(
  'the page is one document under 40 KB that loads nothing, and may do no more than it does',
  async (t) => {
    const { operator, ask } = await running(t);
    const answer = await operator('/');
    const html = await answer.text();
    t.equal(answer.status, 200);
    t.equal(answer.headers.get('content-type'), 'text/html; charset=utf-8');
    t.ok(Buffer.byteLength(html) < 40 * 1024, `${Buffer.byteLength(html)} bytes`);
    t.strictSame(
      [...html.matchAll(/\b(?:src|href|action)\s*=\s*"([^"]*)"/g)].map(([, target]) => target),
      ['data:,', '/status'],
      'but a link',
    );
    t.notMatch(html, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|@import|\bimport\s*\(/);

    const policy = new Map(
      (answer.headers.get('content-security-policy') ?? '')
        .split('; ')
        .map((part) => [part.split(' ', 1)[0], part.slice(part.indexOf(' ') + 1)]),
    );
    const hash = (tag: string): string => {
      const text = new RegExp(`<${tag}[^>]*>([\\s\\S]*?)</${tag}>`).exec(html)?.[1] ?? '';
      t.ok(text.length > 1_000, tag);
      return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
    };
    t.strictSame(Object.fromEntries(policy), {
      'default-src': "'none'",
      'script-src': hash('script'),
      'style-src': hash('style'),
      'connect-src': "'self'",
      'img-src': 'data:',
      'base-uri': "'none'",
      'form-action': "'none'",
      'frame-ancestors': "'none'",
      'require-trusted-types-for': "'script'",
      'trusted-types': "'none'",
    });
    const headers = Object.fromEntries(answer.headers);
    t.match(headers, {
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
      'referrer-policy': 'no-referrer',
      'cross-origin-opener-policy': 'same-origin',
      'cross-origin-resource-policy': 'same-origin',
      'cache-control': 'no-store',
    });
    for (const path of ['/', '/status', '/admin/emergency-shutdown']) {
      const asked = await operator(path, {
        method: 'OPTIONS',
        headers: { Origin: 'http://evil.example', 'Access-Control-Request-Headers': 'authorization' },
      });
      const allowed = [...asked.headers.keys()].filter((name) => name.startsWith('access-control-'));
      t.strictSame([allowed, asked.headers.get('set-cookie')], [[], null], 'no other site, and no cookie');
    }
    const head = await operator('/', { method: 'HEAD' });
    t.strictSame([head.status, await head.text()], [200, '']);
    for (const path of ['/', '/events']) t.equal((await ask(path)).status, 404, "not on the service's door");
  },
);
