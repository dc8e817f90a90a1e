import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { ROOT } from '../support/root.ts';

const DOCS = readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`);

for (const document of [
  'README.md',
  'SECURITY.md',
  'deployment/README.md',
  'test/conformance/README.md',
  ...DOCS,
]) {
  t.test(`every link and picture of ${document} leads somewhere`, async (t) => {
    const text = readFileSync(join(ROOT, document), 'utf8');
    const targets = [...text.matchAll(/\]\(([^)]+)\)|(?:src|srcset)="([^"]+)"/g)].map(
      ([, link, source]) => link ?? source ?? '',
    );
    const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(
      ([, words = '']) => `#${words.toLowerCase().replaceAll(' ', '-')}`,
    );
    for (const target of targets.filter((name) => !/^https?:/.test(name))) {
      const isThere = target.startsWith('#')
        ? headings.includes(target)
        : existsSync(join(ROOT, dirname(document), target.split('#')[0] ?? ''));
      t.ok(isThere, target);
    }
  });
}

t.test('the README leads to every document, and fits on a few screens', async (t) => {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
  for (const name of DOCS) t.match(readme, `](${name})`);
  t.ok(readme.split('\n').length <= 210);
});
