import type { Logger } from 'pino';
import type { App } from './app/app.ts';
import { asApp } from './app/app.ts';
import { Service } from './backends/in-process/service.ts';
import { type Config, completeConfig } from './config/settings.ts';
import { createLogger } from './platform/logger.ts';

export interface ServiceOptions {
  /** The routes, and what they need. Without it the service has its own routes alone. */
  readonly app?: App;
  /** Settings by property (`shutdownTimeoutMs: 5000`); the rest have their defaults. The environment is not read. */
  readonly config?: Partial<Config>;
  /** Default: one made from `logLevel` and `logFormat`. */
  readonly log?: Logger;
}

/**
 * A service inside another program or a test. It takes no signals and never ends the process: call `start()`, and
 * `stop()` when the time has come.
 * @throws ConfigError that lists all mistakes in `config`; StartError when `app` has another shape
 */
export function createService({ app = {}, config: partial = {}, log }: ServiceOptions = {}): Service {
  const config = completeConfig(partial);
  const logger = log ?? createLogger({ level: config.logLevel, format: config.logFormat ?? 'json' });
  return new Service(Object.keys(app).length === 0 ? app : asApp(app, 'the app'), config, logger);
}

export type { App, StartContext } from './app/app.ts';
export { defineApp } from './app/app.ts';
export type { Service } from './backends/in-process/service.ts';
export type { Config } from './config/settings.ts';
export { ConfigError } from './config/settings.ts';
export { ExitCode, StartError } from './exit-code.ts';
export type { ShutdownReport } from './lifecycle/last-shutdown.ts';
export type { Context } from './server/context.ts';
export { InFlight } from './server/in-flight.ts';
export type { ReadJsonOptions } from './server/response.ts';
export { HttpError, readJson, sendJson } from './server/response.ts';
export type { Handler, Mountable, Router, UpgradeHandler } from './server/router.ts';
