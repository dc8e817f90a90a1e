import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import { messageOf } from '../error.ts';
import type { LastShutdown, ShutdownReport } from '../lifecycle/last-shutdown.ts';
import { afterReading, within } from '../platform/deadline.ts';
import { sendError } from '../server/response.ts';
import { escapeControl } from './escape-control.ts';
import { COLUMNS, type Column, History, type Row } from './history.ts';
import type { OpenRequest, Status } from './status.ts';
import { endLine, summaryLine } from './summary-line.ts';

const SECOND_MS = 1_000;
/** More than so many at once are turned away: nobody has so many eyes. */
const MOST_PAGES = 32;
/** A page that has left so much unread is not read any more. */
const MOST_BEHIND_BYTES = 64 * 1024;
/** What the last word may take to be found. */
const LAST_WORD_MS = 250;
/** Of the requests that the last stop has cut. */
const MOST_CUT = 20;

/** The data of an event. Its name is `status`, or `bye` for the last one. */
export interface StatusEvent {
  readonly headline: string;
  readonly status: Status;
  /** A second that is over. */
  readonly row?: Row | undefined;
  /** In the first event alone: what was before. */
  readonly columns?: readonly Column[] | undefined;
  readonly history?: readonly Row[] | undefined;
  /** In the last event alone: how it ended, when it ended by a stop. */
  readonly report?: ShutdownReport | undefined;
}

/**
 * Everybody who watches by `GET /events`: a look each second, and at once when something has changed. One look is
 * under way at a time and is written to all; who does not read is dropped.
 */
export class StatusStream {
  readonly #look: () => Status | Promise<Status>;
  readonly #log: Logger;
  readonly #history = new History();
  /** Those who were told before, and those who still have to be told what was before. */
  readonly #pages = new Set<ServerResponse>();
  readonly #newcomers = new Set<ServerResponse>();
  readonly #timer = setInterval(() => void this.#tell(), SECOND_MS).unref();
  #telling: Promise<void> | undefined;
  #again = false;

  constructor(look: () => Status | Promise<Status>, log: Logger) {
    this.#look = look;
    this.#log = log;
  }

  get #size(): number {
    return this.#pages.size + this.#newcomers.size;
  }

  /** `GET /events` */
  open(request: IncomingMessage, response: ServerResponse): void {
    if (this.#size >= MOST_PAGES) {
      response.setHeader('Retry-After', 5);
      sendError(response, 503, `${MOST_PAGES} pages are open already: close one of them.`);
      return;
    }
    response.writeHead(200, {
      'Content-Type': 'text/event-stream',
      'Cache-Control': 'no-store',
      'X-Content-Type-Options': 'nosniff',
      'Cross-Origin-Resource-Policy': 'same-origin',
      // A proxy that collects the answer before it sends it would show nothing.
      'X-Accel-Buffering': 'no',
    });
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    response.on('close', () => {
      this.#pages.delete(response);
      this.#newcomers.delete(response);
    });
    this.#newcomers.add(response);
    this.changed();
  }

  /** Something is not as it was: all pages are told at once. */
  changed(): void {
    if (this.#size === 0) return;
    this.#again = true;
    void this.#tell();
  }

  /** The service is gone in a moment: says how it ended, and waits for nobody. */
  async close(report: ShutdownReport | undefined): Promise<void> {
    clearInterval(this.#timer);
    if (this.#size === 0) return;
    let last = 'event: bye\ndata: {}\n\n';
    await within(
      LAST_WORD_MS,
      Promise.resolve(this.#look()).then((status) => {
        last = eventOf('bye', {
          ...eventDataOf(status),
          ...(report && { headline: endLine(report), report: shortReport(report) }),
        });
      }),
    ).catch(() => undefined);
    for (const page of [...this.#pages, ...this.#newcomers]) page.end(last);
    this.#pages.clear();
    this.#newcomers.clear();
    // What the system takes it has by then; the connections are closed next.
    await afterReading(0);
  }

  /** A change that comes while a look is under way asks for one more: it finds what they all want to tell. */
  #tell(): Promise<void> {
    this.#telling ??= this.#lookAndTell().finally(() => {
      this.#telling = undefined;
      if (this.#again) void this.#tell();
    });
    return this.#telling;
  }

  async #lookAndTell(): Promise<void> {
    this.#again = false;
    try {
      const status = await this.#look();
      const row = this.#history.add(status);
      if (this.#size === 0) return;
      const view = eventDataOf(status);
      if (this.#pages.size > 0) {
        const event = eventOf('status', { ...view, row });
        for (const page of this.#pages) send(page, event);
      }
      if (this.#newcomers.size === 0) return;
      const first = eventOf('status', { ...view, columns: COLUMNS, history: this.#history.rows() });
      for (const page of this.#newcomers) {
        this.#pages.add(page);
        send(page, first);
      }
      this.#newcomers.clear();
    } catch (error) {
      this.#log.error({ err: error }, `The pages could not be told: ${messageOf(error)}`);
    }
  }
}

function send(page: ServerResponse, event: string): void {
  if (page.writableLength > MOST_BEHIND_BYTES) page.destroy();
  else page.write(event);
}

function eventOf(name: 'status' | 'bye', view: StatusEvent): string {
  return `event: ${name}\ndata: ${JSON.stringify(view)}\n\n`;
}

/** Cut to what a page shows: it comes each second, and nothing in it may steer what shows it. */
function eventDataOf(status: Status): StatusEvent {
  const { in_flight, last_shutdown, last_reload, shutdown } = status;
  const emergency = shutdown?.emergency;
  return {
    headline: summaryLine(status),
    status: {
      ...status,
      in_flight: { ...in_flight, oldest: in_flight.oldest.map(shortRequest) },
      last_shutdown: last_shutdown === null ? null : shortShutdown(last_shutdown),
      last_reload: last_reload && { ...last_reload, reason: escapeControl(last_reload.reason, 1_000) },
      shutdown: shutdown && {
        ...shutdown,
        emergency: emergency ? { ...emergency, reason: escapeControl(emergency.reason, 500) } : null,
      },
    },
  };
}

function shortRequest<T extends Pick<OpenRequest, 'method' | 'path'>>(request: T): T {
  return { ...request, method: escapeControl(request.method), path: escapeControl(request.path) };
}

function shortShutdown(last: LastShutdown): LastShutdown {
  return last.unclean ? last : shortReport(last);
}

function shortReport(report: ShutdownReport): ShutdownReport {
  return { ...report, cut: report.cut.slice(0, MOST_CUT).map(shortRequest) };
}
