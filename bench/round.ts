import autocannon from 'autocannon';
import type { ServerProcess } from '../test/support/server-process.ts';

/** What a server did under a load of its fixed path for a while. */
export interface Round {
  readonly perSecond: number;
  readonly cpuMicros: number;
  /** The share of the time in which the server was on a processor. Far below 1, the client was what limited it. */
  readonly busy: number;
  /** Median, in milliseconds. */
  readonly latency: number;
  readonly seconds: number;
}

/**
 * Asks as fast as it is answered, on so many kept-alive connections.
 * @throws Error when an answer was not 2xx, or there was none
 */
export async function playRound(
  server: ServerProcess,
  { connections, seconds }: { readonly connections: number; readonly seconds: number },
): Promise<Round> {
  const cpuBefore = server.cpuSeconds;
  const startedMs = performance.now();
  const result = await autocannon({
    url: `http://127.0.0.1:${server.port}/`,
    connections,
    duration: seconds,
    sampleInt: 100,
  });
  const elapsed = (performance.now() - startedMs) / 1000;
  const cpu = server.cpuSeconds - cpuBefore;
  const answered = result['2xx'];
  if (result.non2xx + result.errors + result.timeouts > 0 || answered === 0) {
    throw new Error(`${server.name}: ${result.non2xx} answers were not 2xx, ${result.errors} errors`);
  }
  return {
    perSecond: answered / elapsed,
    cpuMicros: (cpu / answered) * 1e6,
    busy: cpu / elapsed,
    latency: result.latency.p50,
    seconds: elapsed,
  };
}
