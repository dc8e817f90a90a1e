import type { Logger } from 'pino';
import { type Config, completeConfig } from './config.ts';
import { createLogger } from './logger.ts';
import type { App } from './service/app.ts';
import { asApp } from './service/app.ts';
import { Service } from './service/service.ts';

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

export type { Config } from './config.ts';
export { ConfigError } from './config.ts';
export type { Context } from './http/context.ts';
export { InFlight } from './http/in-flight.ts';
export type { ReadJsonOptions } from './http/response.ts';
export { HttpError, readJson, sendJson } from './http/response.ts';
export type { Handler, Mountable, Router, UpgradeHandler } from './http/router.ts';
export { ExitCode, StartError } from './lifecycle/exit-code.ts';
export type { ShutdownReport } from './lifecycle/shutdown-record.ts';
export type { App, StartContext } from './service/app.ts';
export { defineApp } from './service/app.ts';
export type { Service } from './service/service.ts';
