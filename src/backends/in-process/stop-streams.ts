import type { Exchange } from '../../server/exchange.ts';

/** So many hear of the stop in one turn of the loop: between them the gate refuses what has come. */
const AT_ONCE = 50;

/**
 * Has each request in flight hear of the stop as its route says. Those that are closed are first; those that are told
 * come one after the other, evenly over the time, so that their clients do not all come back at once.
 * @param spreadMs until the last one is told
 * @returns ends it: who has not heard by then does not
 */
export function stopStreams(exchanges: readonly Exchange[], spreadMs: number): () => void {
  const closed = exchanges.filter(({ onStop }) => onStop === 'close');
  const told = exchanges.filter(({ onStop }) => onStop === 'tell');
  const ends = [inTurn(closed, 0), inTurn(told, spreadMs)];
  return () => {
    for (const end of ends) end();
  };
}

function inTurn(exchanges: readonly Exchange[], spreadMs: number): () => void {
  const startedMs = performance.now();
  const count = exchanges.length;
  let next = 0;
  let timer: NodeJS.Timeout | undefined;
  const step = (): void => {
    const share = spreadMs === 0 ? 1 : (performance.now() - startedMs) / spreadMs;
    const due = Math.min(count, Math.floor(share * count) + 1, next + AT_ONCE);
    for (const exchange of exchanges.slice(next, due)) exchange.stop();
    next = due;
    if (next < count) timer = setTimeout(step, spreadMs / count);
  };
  step();
  return () => clearTimeout(timer);
}
