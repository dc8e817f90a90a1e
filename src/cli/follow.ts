import { statusFrom } from '../ops/status.ts';
import type { StatusEvent } from '../ops/status-stream.ts';

/** An event comes each second: a connection that is silent for this long is dead. */
const SILENCE_MS = 5_000;

/**
 * Reads the status stream of an ops server until it ends.
 * @throws Error when there is no answer, when the connection is lost or silent, and when `stop` is aborted
 */
export async function follow(
  url: string,
  stop: AbortSignal,
  hear: (view: StatusEvent) => void,
): Promise<void> {
  const silence = new AbortController();
  const watchdog = setTimeout(() => silence.abort(new Error('nothing was heard any more')), SILENCE_MS);
  try {
    const response = await fetch(`${url}/events`, { signal: AbortSignal.any([stop, silence.signal]) });
    if (!response.ok || response.body === null) throw new Error(`${url}/events answered ${response.status}`);
    const decoder = new TextDecoder();
    let text = '';
    for await (const chunk of response.body) {
      watchdog.refresh();
      text += decoder.decode(chunk, { stream: true });
      const events = text.split('\n\n');
      text = events.pop() ?? '';
      for (const event of events) {
        const data = event.split('\n').find((line) => line.startsWith('data: '));
        const view = data === undefined ? {} : JSON.parse(data.slice('data: '.length));
        // The last event may be empty.
        if ('status' in view) hear({ ...view, status: statusFrom(view.status) });
      }
    }
  } finally {
    clearTimeout(watchdog);
  }
}
