import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { EXCHANGE } from './messages.ts';

/** Durations in milliseconds. */
export interface SseOptions {
  /** How long a client waits before it connects again. Default: 5000. */
  readonly retryMs?: number;
  /** How often a comment shows that the connection lives, to proxies too; 0: never. Default: 15000. */
  readonly heartbeatMs?: number;
  /** More fields for the head. */
  readonly headers?: OutgoingHttpHeaders;
}

export interface SseEvent {
  /** Text as it is, anything else as JSON. */
  readonly data: unknown;
  /** Default: what the client hears as `message`. */
  readonly event?: string;
  /** The client sends the last one as `Last-Event-ID` when it connects again. */
  readonly id?: string;
}

/** An answer that goes on. */
export interface EventStream {
  /**
   * Sends an event. Await it: it waits for a client that reads slowly.
   * @returns false when the stream is over, because the client is gone, the service stops or `end` was called
   * @throws TypeError when `event` or `id` holds a line break, or `data` is nothing that JSON has
   */
  send(event: SseEvent): Promise<boolean>;
  end(): void;
  /** Aborted when the stream is over. */
  readonly signal: AbortSignal;
}

/**
 * Begins a stream of server-sent events (HTML standard, section 9.2). When `context.stopping` is aborted, the client is
 * told with `retry:` when to connect again, and the answer ends, whole; on a route with `onStop: 'tell'` that is at its
 * turn in DRAIN_SPREAD. The connection ends with it, so that the client comes back on another one.
 */
export function sse(response: ServerResponse, options: SseOptions = {}): EventStream {
  const { retryMs = 5_000, heartbeatMs = 15_000, headers = {} } = options;
  for (const [name, value] of Object.entries({ retryMs, heartbeatMs })) {
    if (!Number.isInteger(value) || value < 0)
      throw new RangeError(`sse: ${name}: want a whole number of milliseconds >= 0, got ${value}`);
  }
  const over = new AbortController();
  const stopping = response[EXCHANGE]?.stopping;
  let heartbeat: NodeJS.Timeout | undefined;
  let room: Promise<void> | undefined;
  response.writeHead(200, {
    'Content-Type': 'text/event-stream; charset=utf-8',
    'Cache-Control': 'no-store',
    Connection: 'close',
    // nginx would keep events back until it has a bufferful.
    'X-Accel-Buffering': 'no',
    ...headers,
  });
  response.once('close', leave);
  stopping?.addEventListener('abort', goodbye);
  if (response.req.method === 'HEAD') end();
  else if (stopping?.aborted) goodbye();
  else {
    // The head leaves with the first bytes.
    write(`retry: ${retryMs}\n\n`);
    if (heartbeatMs > 0) heartbeat = setInterval(() => room ?? write(':\n\n'), heartbeatMs).unref();
  }
  return { send, end, signal: over.signal };

  async function send(event: SseEvent): Promise<boolean> {
    const text = textOf(event);
    if (!over.signal.aborted) write(text);
    await room;
    return !over.signal.aborted;
  }

  function write(text: string): void {
    if (response.write(text) || room !== undefined) return;
    room = new Promise<void>((resolve) => {
      const done = (): void => {
        response.off('drain', done).off('close', done);
        room = undefined;
        resolve();
      };
      response.on('drain', done).on('close', done);
    });
  }

  function goodbye(): void {
    if (!over.signal.aborted) response.write(`: the service stops\nretry: ${retryMs}\n\n`);
    end();
  }

  function end(): void {
    leave();
    if (!response.writableEnded) response.end();
  }

  function leave(): void {
    if (over.signal.aborted) return;
    clearInterval(heartbeat);
    stopping?.removeEventListener('abort', goodbye);
    over.abort(new Error('the stream is over'));
  }
}

function textOf({ data, event, id }: SseEvent): string {
  const body = typeof data === 'string' ? data : JSON.stringify(data);
  if (body === undefined) throw new TypeError(`sse: data: want text or what JSON has, got ${typeof data}`);
  const fields = Object.entries({ event, id }).flatMap(([name, value]) => {
    if (value === undefined) return [];
    if (typeof value !== 'string' || /[\r\n\0]/.test(value))
      throw new TypeError(`sse: ${name}: want one line of text, got ${JSON.stringify(value)}`);
    return [`${name}: ${value}\n`];
  });
  const lines = body.split(/\r\n|\r|\n/).map((line) => `data: ${line}\n`);
  return `${fields.join('')}${lines.join('')}\n`;
}
