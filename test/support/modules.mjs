/**
 * Single modules of `src`, compiled, for tests and benches that look inside: `dist` has several of them in one file.
 */
import { copyFileSync, cpSync, readdirSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { build } from 'esbuild';

const ROOT = resolve(import.meta.dirname, '../..');
const SRC = join(ROOT, 'src');

/** @type {import('esbuild').BuildOptions} */
export const OPTIONS = {
  bundle: true,
  ...{ platform: 'node', format: 'esm', target: 'node20', absWorkingDir: ROOT, logLevel: 'warning' },
};

/**
 * Has what is imported from `src` come from the modules in `dir`.
 * @param {string} dir
 * @returns {import('esbuild').Plugin}
 */
export function modulesIn(dir) {
  return {
    name: 'modules of src by themselves',
    setup({ onResolve }) {
      onResolve({ filter: /\.ts$/ }, ({ kind, path, resolveDir }) => {
        const module = relative(SRC, resolve(resolveDir, path));
        if (kind === 'entry-point' || module.startsWith('..')) return undefined;
        return { path: join(dir, 'src', module).replace(/ts$/, 'js'), external: true };
      });
    },
  };
}

/**
 * Compiles each module to a file of its own in `dir/src`, beside what the code reads from disk.
 * @param {string} dir
 */
export async function compileModules(dir) {
  const names = readdirSync(SRC, { recursive: true, encoding: 'utf8' });
  await build({
    ...OPTIONS,
    ...{ entryPoints: names.filter((name) => name.endsWith('.ts')).map((name) => join(SRC, name)) },
    ...{ outdir: join(dir, 'src'), outbase: SRC, packages: 'external', sourcemap: true },
    plugins: [modulesIn(dir)],
  });
  cpSync(SRC, join(dir, 'src'), { recursive: true, filter: (name) => !name.endsWith('.ts') });
  copyFileSync(join(ROOT, 'package.json'), join(dir, 'package.json'));
}
