import { setTimeout as delay } from 'node:timers/promises';

const FIRST_BACKOFF_MS = 100;
const LONGEST_BACKOFF_MS = 5_000;

/** Waits longer after each failure, and not at all before the first. A stop ends the wait. */
export async function backOff(failures: number, signal: AbortSignal): Promise<void> {
  const ms = failures <= 0 ? 0 : Math.min(FIRST_BACKOFF_MS * 2 ** (failures - 1), LONGEST_BACKOFF_MS);
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
