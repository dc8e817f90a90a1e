import type { StatusEvent } from '../ops/status-stream.ts';

/** An event comes each second: whoever is silent for so long is not there any more. */
const SILENCE_MS = 5_000;

/**
 * Listens to what the ops server tells those who watch, until it says goodbye.
 * @throws Error when nobody answers there, when the connection is lost or silent, and when `stop` is aborted
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
        // A goodbye may have found nothing to tell.
        if ('status' in view) hear(view);
      }
    }
  } finally {
    clearTimeout(watchdog);
  }
}
