export { type App, defineApp, type Hooks, type StartContext, type StopContext } from './app/app.ts';
export { type Config, ConfigError } from './config/settings.ts';
export { ExitCode, StartError } from './exit-code.ts';
export type { ShutdownReport } from './lifecycle/last-shutdown.ts';
export { type ClosableWebSocket, type CloseOptions, closeOnStop } from './server/close-on-stop.ts';
export type { Context } from './server/context.ts';
export { InFlight } from './server/in-flight.ts';
export { HttpError, type ReadJsonOptions, readJson, sendJson } from './server/response.ts';
export type { Handler, Mountable, OnStop, RouteOptions, Router, UpgradeHandler } from './server/router.ts';
export { type EventStream, type SseEvent, type SseOptions, sse } from './server/sse.ts';
export {
  createService,
  type FailSafeOptions,
  failSafe,
  type Service,
  type ServiceOptions,
  stopping,
} from './service.ts';
