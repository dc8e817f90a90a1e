import type { Logger } from 'pino';
import { seconds } from '../platform/deadline.ts';

/** How long the application's stop(), the audit log and the report may take after the deadline. */
export const FLUSH_MS = 5_000;

/** Durations in milliseconds. */
export interface StopDurations {
  readonly shutdownDelayMs: number;
  readonly shutdownTimeoutMs: number;
  /** How long the platform waits before it kills; 0 when unknown. */
  readonly stopBudgetMs: number;
}

/** Warns when a stop can take longer than the platform waits before it kills. */
export function checkStopBudget(durations: StopDurations, log: Pick<Logger, 'warn'>): void {
  const { stopBudgetMs, shutdownDelayMs, shutdownTimeoutMs } = durations;
  const neededMs = shutdownDelayMs + shutdownTimeoutMs + FLUSH_MS;
  if (stopBudgetMs === 0 || neededMs <= stopBudgetMs) return;
  log.warn(
    `STOP_BUDGET: a stop can take ${seconds(neededMs)}s (SHUTDOWN_DELAY + SHUTDOWN_TIMEOUT + ` +
      `${seconds(FLUSH_MS)}s for the flush), but the platform kills after ${seconds(stopBudgetMs)}s`,
  );
}
