import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Logger } from 'pino';
import type { Config } from '../config/settings.ts';
import { hasCode, messageOf } from '../error.ts';
import { ExitCode, StartError } from '../exit-code.ts';
import type { InFlight } from '../server/in-flight.ts';
import type { Router } from '../server/router.ts';
import { offerOwnPackage } from './own-package.ts';
import { placeOfSyntaxError } from './syntax-error.ts';

/** What an application's start() is given. */
export interface StartContext {
  readonly log: Logger;
  readonly config: Config;
  /** Aborted when a stop overtakes start(), which then has a second to settle. */
  readonly stopping: AbortSignal;
  /** Holds the drain for work that is no request: `const leave = inFlight.enter('job 17')`. */
  readonly inFlight: InFlight;
}

/** What the hooks of a stop are given. */
export interface StopContext {
  readonly log: Logger;
  /** Why the service stops: `SIGTERM`, `emergency`, `crash`, `retirement` (of a worker, by a reload), or the caller's words. */
  readonly reason: string;
  /** Milliseconds that the hook has, from its call on. The stop then goes on without it. */
  readonly deadline: number;
}

/**
 * What an application does in the life of its service, in this order. Every part may be left out. One that fails or is
 * late is named in the log and decides the exit code: 70 when it fails, 1 when it is late.
 */
export interface Hooks {
  /** Opens what the routes need. The service listens once it is done. Within START_TIMEOUT. */
  start?(context: StartContext): unknown;
  /**
   * New requests are refused from now on: fetch no more jobs. The drain is not over before it is done, within 5 seconds
   * and the deadline.
   */
  locked?(context: StopContext): unknown;
  /**
   * Nothing is in flight any more. Not called when the deadline has cut something. Within 5 seconds and what is left of
   * SHUTDOWN_TIMEOUT, and at least a second.
   */
  drained?(context: StopContext): unknown;
  /** Closes what start() has opened, within what is left of SHUTDOWN_TIMEOUT and at least a second. */
  stop?(context: StopContext): unknown;
}

/** Every part may be left out. */
export interface App extends Hooks {
  /** Registers the routes; called once, after start(). */
  routes?(router: Router): unknown;
}

/** Adds types, and returns the object as it is. */
export function defineApp(app: App): App {
  return app;
}

const PARTS = ['start', 'routes', 'locked', 'drained', 'stop'] as const;

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
  const want = `APP: want ${origin} to export an app { ${PARTS.join(', ')} } by default`;
  if (typeof value !== 'object' || value === null) {
    throw new StartError(`${want}, got ${value === null ? 'null' : typeof value}`, ExitCode.Config);
  }
  const given = PARTS.filter((part) => Reflect.get(value, part) !== undefined);
  if (given.length === 0) throw new StartError(`${want}, got none of them`, ExitCode.Config);
  assertFunctions(value, `${want} of functions`);
  return value;
}

/** @throws StartError 78 when one of them is no function */
export function asHooks(hooks: Hooks): App {
  assertFunctions(hooks, 'failSafe: want functions for its hooks');
  return hooks;
}

function assertFunctions(value: object, want: string): void {
  for (const part of PARTS) {
    const type = typeof Reflect.get(value, part);
    if (type !== 'function' && type !== 'undefined')
      throw new StartError(`${want}, got ${type} for ${part}`, ExitCode.Config);
  }
}
