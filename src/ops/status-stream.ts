import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import { messageOf } from '../error.ts';
import type { ShutdownReport } from '../lifecycle/last-shutdown.ts';
import { afterReading, within } from '../platform/deadline.ts';
import { escapeControl } from '../platform/escape-control.ts';
import { oneAtATime } from '../platform/one-at-a-time.ts';
import { sendError } from '../server/response.ts';
import { COLUMNS, type Column, History, type Row } from './history.ts';
import type { Status } from './status.ts';
import { endLine, summaryLine } from './summary-line.ts';

const SECOND_MS = 1_000;
const MOST_PAGES = 32;
/** A page that leaves this much unread is dropped. */
const MOST_BEHIND_BYTES = 64 * 1024;
/** How long finding the status for the last event may take. */
const LAST_EVENT_MS = 250;
/** Requests cut by a stop that an event names. */
const MOST_CUT = 20;

/** The data of an event. Its name is `status`, or `bye` for the last one. */
export interface StatusEvent {
  readonly headline: string;
  readonly status: Status;
  /** A second that is over. */
  readonly row?: Row | undefined;
  /** In the first event alone. */
  readonly columns?: readonly Column[] | undefined;
  readonly history?: readonly Row[] | undefined;
  /** In the last event alone, after a stop. */
  readonly report?: ShutdownReport | undefined;
}

/**
 * `GET /events`: sends the status to every open page each second, and at once after a change. All pages share one look
 * at the status, and only one look is under way at a time.
 */
export class StatusStream {
  readonly #status: () => Status | Promise<Status>;
  readonly #log: Logger;
  readonly #history = new History();
  /** A page that is new gets the history with its first event. */
  readonly #pages = new Map<ServerResponse, 'new' | 'told'>();
  readonly #tell = oneAtATime(() => this.#lookAndTell());
  readonly #timer = setInterval(() => void this.#tell(), SECOND_MS).unref();

  constructor(status: () => Status | Promise<Status>, log: Logger) {
    this.#status = status;
    this.#log = log;
  }

  open(request: IncomingMessage, response: ServerResponse): void {
    if (this.#pages.size >= MOST_PAGES) {
      response.setHeader('Retry-After', 5);
      sendError(response, 503, `${MOST_PAGES} pages are open already: close one of them.`);
      return;
    }
    response.writeHead(200, {
      'Content-Type': 'text/event-stream',
      'Cache-Control': 'no-store',
      'X-Content-Type-Options': 'nosniff',
      'Cross-Origin-Resource-Policy': 'same-origin',
      // A proxy that buffers the answer would show nothing.
      'X-Accel-Buffering': 'no',
    });
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    response.on('close', () => this.#pages.delete(response));
    this.#pages.set(response, 'new');
    this.changed();
  }

  /** The status has changed: tells all pages at once. */
  changed(): void {
    if (this.#pages.size > 0) void this.#tell();
  }

  /** Ends all pages with a last event that says how the stop went, if there was one. */
  async close(report: ShutdownReport | undefined): Promise<void> {
    clearInterval(this.#timer);
    if (this.#pages.size === 0) return;
    let last = 'event: bye\ndata: {}\n\n';
    const look = async (): Promise<void> => {
      const status = await this.#status();
      const end = report && { headline: endLine(report, status), report: shortened(report) };
      last = eventOf('bye', { ...eventDataOf(status), ...end });
    };
    await within(LAST_EVENT_MS, look()).catch(() => undefined);
    for (const page of this.#pages.keys()) page.end(last);
    this.#pages.clear();
    // Lets the system take the last event: the connections are closed next.
    await afterReading(0);
  }

  async #lookAndTell(): Promise<void> {
    try {
      this.#send(await this.#status());
    } catch (error) {
      this.#log.error({ err: error }, `The pages could not be told: ${messageOf(error)}`);
    }
  }

  #send(status: Status): void {
    const row = this.#history.add(status);
    if (this.#pages.size === 0) return;
    const data = eventDataOf(status);
    const next = eventOf('status', { ...data, row });
    for (const [page, state] of this.#pages) {
      const { rows } = this.#history;
      const event = state === 'told' ? next : eventOf('status', { ...data, columns: COLUMNS, history: rows });
      this.#pages.set(page, 'told');
      if (page.writableLength > MOST_BEHIND_BYTES) page.destroy();
      else page.write(event);
    }
  }
}

function eventOf(name: 'status' | 'bye', data: StatusEvent): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** What a page shows: bounded, because it comes each second, and escaped, because clients chose parts of it. */
function eventDataOf(status: Status): StatusEvent {
  const { in_flight, last_shutdown, last_reload, shutdown } = status;
  const emergency = shutdown?.emergency ?? null;
  return {
    headline: summaryLine(status),
    status: {
      ...status,
      in_flight: {
        ...in_flight,
        oldest: in_flight.oldest.map(escaped),
        holds: in_flight.holds.map(escapedHold),
      },
      last_shutdown: last_shutdown?.unclean === false ? shortened(last_shutdown) : last_shutdown,
      last_reload: last_reload && { ...last_reload, reason: escapeControl(last_reload.reason, 1_000) },
      shutdown: shutdown && {
        ...shutdown,
        emergency: emergency && { ...emergency, reason: escapeControl(emergency.reason, 500) },
      },
    },
  };
}

function escaped<T extends { readonly method: string; readonly path: string }>(request: T): T {
  return { ...request, method: escapeControl(request.method), path: escapeControl(request.path) };
}

function escapedHold<T extends { readonly name: string }>(hold: T): T {
  return { ...hold, name: escapeControl(hold.name) };
}

function shortened(report: ShutdownReport): ShutdownReport {
  const { cut, cut_holds } = report;
  return {
    ...report,
    cut: cut.slice(0, MOST_CUT).map(escaped),
    cut_holds: cut_holds.slice(0, MOST_CUT).map(escapedHold),
  };
}
