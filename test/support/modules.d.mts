import type { BuildOptions, Plugin } from 'esbuild';

export const OPTIONS: BuildOptions;
export function modulesIn(dir: string): Plugin;
export function compileModules(dir: string): Promise<void>;
