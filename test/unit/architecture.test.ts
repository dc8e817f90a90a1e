import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import t from 'tap';
import { ROOT } from '../support/root.ts';

const SRC = join(ROOT, 'src');

/** From top to bottom: each folder imports only those below it, and the files on top of src, which anybody may. */
const ORDER = [
  'cli',
  'backends',
  'control',
  'ops',
  'app',
  'server',
  'lifecycle',
  'audit',
  'platform',
  'config',
];

/** The files on top of src. Those that compose may import any folder; the others are imported by all, and import none. */
const COMPOSE = ['main.ts', 'index.ts'];

interface Import {
  readonly file: string;
  readonly target: string;
}

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => name.split(sep).join('/'))
  .sort();

/** Every import of a file of our own, also of types alone, re-exports and import(). */
const imports: readonly Import[] = files.flatMap((file) =>
  [...sourceOf(file).matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'(\.{1,2}\/[^']+)'/g)].map(([, path = '']) => ({
    file,
    target: relative(SRC, resolve(SRC, dirname(file), path))
      .split(sep)
      .join('/'),
  })),
);

function sourceOf(file: string): string {
  return readFileSync(join(SRC, file), 'utf8');
}

function folderOf(file: string): string {
  return file.includes('/') ? file.slice(0, file.indexOf('/')) : '';
}

t.test('the imports of all files were found', async (t) => {
  t.ok(files.length > 30 && imports.length > 80, `${imports.length} imports in ${files.length} files`);
  t.strictSame(
    imports.filter(({ target }) => !files.includes(target)),
    [],
    'each names a file',
  );
  // One of each kind, so that a pattern that overlooks a kind is noticed.
  const has = (file: string, target: string): boolean =>
    imports.some((found) => found.file === file && found.target === target);
  t.ok(has('cli/help.ts', 'config/settings.ts'), 'import');
  t.ok(has('main.ts', 'cli/serve.ts'), 'import()');
  t.ok(has('server/exchange.ts', 'server/context.ts'), 'import type');
  t.ok(has('index.ts', 'server/response.ts'), 'export from');
});

t.test('every folder has its place in the order', async (t) => {
  const folders = new Set(files.map(folderOf).filter((folder) => folder !== ''));
  t.strictSame(
    [...folders].filter((folder) => !ORDER.includes(folder)),
    [],
  );
});

t.test('imports go one way', async (t) => {
  const wrong = imports.filter(({ file, target }) => {
    const [from, to] = [folderOf(file), folderOf(target)];
    if (to === '') return COMPOSE.includes(target);
    if (from === '') return !COMPOSE.includes(file);
    return ORDER.indexOf(to) < ORDER.indexOf(from);
  });
  t.strictSame(
    wrong.map(({ file, target }) => `${file} imports ${target}`),
    [],
  );
});

t.test('only main ends the process', async (t) => {
  const code = (file: string): string => sourceOf(file).replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, '');
  const ends = files.filter((file) => /process\s*\.\s*(exit|exitCode|reallyExit|abort)\b/.test(code(file)));
  t.strictSame(ends, ['main.ts', 'platform/end-process.ts']);
  t.equal(code('platform/end-process.ts').match(/process\.exit\(/g)?.length, 2, 'and at one place');
});

t.test('no module is a drawer for everything', async (t) => {
  t.strictSame(
    files.filter((file) => /(^|\/)(utils?|helpers?|common|managers?|misc)\b/.test(file)),
    [],
  );
});
