import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Logger } from 'pino';
import type { Config } from '../config/settings.ts';
import { hasCode, messageOf } from '../error.ts';
import { ExitCode, StartError } from '../exit-code.ts';
import type { Router } from '../server/router.ts';
import { offerOwnPackage } from './own-package.ts';
import { placeOfSyntaxError } from './syntax-error.ts';

/** What an application's start() is given. */
export interface StartContext {
  readonly log: Logger;
  readonly config: Config;
  /** Aborted when a stop overtakes start(), which then has a second to settle. */
  readonly stopping: AbortSignal;
}

/** Every part may be left out. */
export interface App {
  /** Opens what the routes need. The service listens once it is done. */
  start?(context: StartContext): unknown;
  /** Registers the routes; called once, before start(). */
  routes?(router: Router): unknown;
  /** Closes it after the last request, within what is left of SHUTDOWN_TIMEOUT and at least a second. */
  stop?(): unknown;
}

/** Adds types, and returns the object as it is. */
export function defineApp(app: App): App {
  return app;
}

const PARTS = ['start', 'routes', 'stop'] as const;

/** An application, or the path of the ES module that exports it by default, relative to the working directory. */
export type AppSource = App | string;

/** @throws StartError 78 when there is no such file */
export function assertAppFile(path: string): void {
  if (statSync(resolve(path), { throwIfNoEntry: false })?.isFile()) return;
  throw new StartError(`APP: want the path of an ES module, got "${path}" (no such file)`, ExitCode.Config);
}

/** @throws StartError 78 when the module's default export has another shape, 70 when it throws */
export async function loadApp(path: string): Promise<App> {
  let module: { default?: unknown };
  offerOwnPackage(resolve(path));
  try {
    module = await import(pathToFileURL(resolve(path)).href);
  } catch (error) {
    if (hasCode(error, 'ERR_UNKNOWN_FILE_EXTENSION') && /\.[cm]?ts$/.test(path)) {
      const use = 'use Node 22.18 or newer, or NODE_OPTIONS="--import tsx"';
      throw new StartError(`APP: Node ${process.version} cannot import ${path}: ${use}`, ExitCode.Config);
    }
    const place = error instanceof SyntaxError ? placeOfSyntaxError(resolve(path), error) : undefined;
    const told = place === undefined ? messageOf(error) : `${messageOf(error)} (${place})`;
    throw new StartError(`APP: ${path} failed when it was imported: ${told}`, ExitCode.Internal, {
      cause: error,
    });
  }
  return asApp(module.default, path);
}

/** @throws StartError 78 when `value` is no application; `origin` names it in the message */
export function asApp(value: unknown, origin: string): App {
  const want = `APP: want ${origin} to export an app { start, routes, stop } by default`;
  if (typeof value !== 'object' || value === null) {
    throw new StartError(`${want}, got ${value === null ? 'null' : typeof value}`, ExitCode.Config);
  }
  const given = PARTS.filter((part) => Reflect.get(value, part) !== undefined);
  if (given.length === 0) throw new StartError(`${want}, got none of them`, ExitCode.Config);
  for (const part of given) {
    const type = typeof Reflect.get(value, part);
    if (type !== 'function')
      throw new StartError(`${want} of functions, got ${type} for ${part}`, ExitCode.Config);
  }
  return value;
}
