import type { Logger } from 'pino';
import { seconds } from '../platform/deadline.ts';

/** What the application's stop(), the audit log and the report may take after the deadline. */
export const FLUSH_MS = 5_000;

/** Durations in milliseconds. */
export interface StopDurations {
  readonly shutdownDelayMs: number;
  readonly shutdownTimeoutMs: number;
  /** What the platform grants before it kills; 0 when nobody has said. */
  readonly stopBudgetMs: number;
}

/** Warns when a stop can take longer than the platform waits: then what was promised is cut by somebody else. */
export function checkStopBudget(durations: StopDurations, log: Logger): void {
  const { stopBudgetMs, shutdownDelayMs, shutdownTimeoutMs } = durations;
  const neededMs = shutdownDelayMs + shutdownTimeoutMs + FLUSH_MS;
  if (stopBudgetMs === 0 || neededMs <= stopBudgetMs) return;
  log.warn(
    `STOP_BUDGET: a stop can take ${seconds(neededMs)}s (SHUTDOWN_DELAY + SHUTDOWN_TIMEOUT + ` +
      `${seconds(FLUSH_MS)}s for the flush), but the platform kills after ${seconds(stopBudgetMs)}s`,
  );
}
