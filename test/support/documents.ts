import { copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, utimesSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from './root.ts';

/** A fenced block of a document, and the comment in front of it that says how it is run, or that it is not, and why. */
export interface Block {
  readonly note: string;
  readonly language: string;
  readonly text: string;
}

export function blocksOf(document: string): readonly Block[] {
  const source = readFileSync(join(ROOT, document), 'utf8');
  return [...source.matchAll(/(?:<!-- (.*?) -->\n)?^```(\w*)\n([\s\S]*?)^```$/gm)].map(
    ([, note = '', language = '', text = '']) => ({ note, language, text }),
  );
}

/** What a reader has after `make build`, without what commands of the documents do not need. */
export function checkout(dir: string): string {
  const scratch = join(dir, 'checkout');
  for (const name of ['deployment', 'test/conformance'])
    cpSync(join(ROOT, name), join(scratch, name), { recursive: true });
  for (const name of ['bench', 'src']) mkdirSync(join(scratch, name));
  for (const name of ['Makefile', 'package.json', 'package-lock.json', 'bench/demo-app.mjs'])
    copyFileSync(join(ROOT, name), join(scratch, name));
  for (const name of ['tsconfig.json', 'tsconfig.build.json'])
    copyFileSync(join(ROOT, name), join(scratch, name));
  symlinkSync(join(ROOT, 'dist'), join(scratch, 'dist'));
  // By this make knows that packages are installed.
  installInto(scratch, ['.package-lock.json']);
  // Older than what was built from it: make must find nothing to do.
  for (const name of readdirSync(scratch, { recursive: true, encoding: 'utf8' })) {
    if (!/^(dist|node_modules)/.test(name)) utimesSync(join(scratch, name), 0, 0);
  }
  return scratch;
}

/** A copy of an example in `dir`, with the packages that it names. */
export function installExample(name: string, dir: string): void {
  cpSync(join(ROOT, 'examples', name), dir, { recursive: true });
  const { dependencies } = JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8'));
  installInto(dir, Object.keys(dependencies));
}

/** Links packages of ours: nothing that happens in `dir` can change them. */
export function installInto(dir: string, names: readonly string[]): void {
  for (const name of names) {
    const link = join(dir, 'node_modules', name);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(name === 'master-agent' ? ROOT : join(ROOT, 'node_modules', name), link);
  }
}
