import { realpathSync } from 'node:fs';
import * as modules from 'node:module';
import { pathToFileURL } from 'node:url';
import { CODE } from '../version.ts';

const NAME = 'master-agent';

/**
 * Lets an application import this package where it is not installed: it then gets the one that serves it. An
 * application that has it installed keeps its own.
 * @param path the application's module, absolute
 */
export function offerOwnPackage(path: string): void {
  if (isInstalledFor(path)) return;
  const url = new URL('index.js', CODE).href;
  // Node >= 22.15. Its elder `register` starts a thread, and is deprecated in newer versions.
  if ('registerHooks' in modules && typeof modules.registerHooks === 'function') {
    modules.registerHooks({
      resolve(specifier: string, context: unknown, next: (specifier: string, context: unknown) => unknown) {
        if (specifier !== NAME) return next(specifier, context);
        try {
          return next(specifier, context);
        } catch {
          return { url, shortCircuit: true };
        }
      },
    });
    return;
  }
  const hooks = `export async function resolve(specifier, context, next) {
    if (specifier !== ${JSON.stringify(NAME)}) return next(specifier, context);
    return next(specifier, context).catch(() => ({ url: ${JSON.stringify(url)}, shortCircuit: true }));
  }`;
  modules.register(`data:text/javascript,${encodeURIComponent(hooks)}`);
}

function isInstalledFor(path: string): boolean {
  try {
    // Where a link leads, as import() does.
    modules.createRequire(pathToFileURL(realpathSync(path))).resolve(NAME);
    return true;
  } catch {
    return false;
  }
}
