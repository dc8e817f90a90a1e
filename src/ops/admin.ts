import { createHash, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { within } from '../platform/deadline.ts';
import { sendError, sendJson } from '../server/response.ts';

/** Wrong tokens from one address before it has to wait, and for how long they count. */
const MOST_FAILURES = 5;
const WINDOW_MS = 60_000;
/** Addresses remembered at most; past that the oldest is forgotten, so a flood of addresses cannot fill the memory. */
const MOST_ADDRESSES = 10_000;
/** Of an emergency's body, and of the reason in it. */
const MOST_BODY_BYTES = 8 * 1024;
const MOST_REASON_CHARACTERS = 500;

/** How long the body of an emergency is waited for. */
const BODY_WAIT_MS = 1_000;

/** What an attempt to use the administrator's routes came to. */
export type Attempt = 'accepted' | 'no token' | 'wrong token' | 'too many failures' | 'no token is set';

/** A request to an administrator's route, as plain data. */
export interface AdminRequest {
  /** The port it came on. */
  readonly port: 'service' | 'ops';
  readonly address: string;
  /** The header as it came. */
  readonly authorization: string | undefined;
  /** Of an emergency, as the client gave it; empty for none. */
  readonly reason: string;
}

export type AdminAnswer =
  | { readonly attempt: 'accepted' /** Whether the latch is on disk. */; readonly latched: boolean }
  | { readonly attempt: Exclude<Attempt, 'accepted'> /** Seconds. */; readonly retryAfter: number };

/** Decides about requests to the administrator's routes, and does what an accepted one asks for. */
export interface Admin {
  ask(request: AdminRequest): Promise<AdminAnswer>;
}

type Asker = Pick<AdminRequest, 'port' | 'address'>;

/**
 * Checks `Authorization: Bearer` against the administrator's token. Wrong tokens count by port and address. On the ops
 * server the right token always gets in: behind a proxy every client of the service has the operator's address.
 */
export class Credential {
  #digest: Buffer | undefined;
  readonly #failures = new Map<string, number[]>();

  get isSet(): boolean {
    return this.#digest !== undefined;
  }

  /** Only a digest is kept. */
  set(token: string | undefined): void {
    this.#digest = token === undefined ? undefined : digest(token);
  }

  check({ port, address, authorization }: Omit<AdminRequest, 'reason'>): Attempt {
    if (this.#digest === undefined) return 'no token is set';
    const token = bearer(authorization);
    // Digests have one length, so the comparison tells nothing about the token's.
    const isRight = token !== undefined && timingSafeEqual(digest(token), this.#digest);
    const recent = this.#recentFailures({ port, address });
    if (recent.length >= MOST_FAILURES && !(isRight && port === 'ops')) return 'too many failures';
    if (isRight) return 'accepted';
    if (token === undefined) return 'no token';
    const key = `${port} ${address}`;
    this.#failures.delete(key);
    this.#failures.set(key, [...recent, performance.now()]);
    const [oldest] = this.#failures.keys();
    if (this.#failures.size > MOST_ADDRESSES && oldest !== undefined) this.#failures.delete(oldest);
    return 'wrong token';
  }

  /** Seconds until the address may try again. */
  retryAfter(asker: Asker): number {
    const [first] = this.#recentFailures(asker);
    return first === undefined ? 0 : Math.ceil((first + WINDOW_MS - performance.now()) / 1000);
  }

  #recentFailures({ port, address }: Asker): number[] {
    const since = performance.now() - WINDOW_MS;
    return (this.#failures.get(`${port} ${address}`) ?? []).filter((failedMs) => failedMs > since);
  }
}

function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

function bearer(authorization: string | undefined): string | undefined {
  const [scheme, token] = authorization?.split(' ', 2) ?? [];
  return scheme?.toLowerCase() === 'bearer' && token !== undefined && token !== '' ? token : undefined;
}

/** `POST /admin/emergency-shutdown`, on either port. */
export async function emergencyShutdown(
  request: IncomingMessage,
  response: ServerResponse,
  admin: Admin,
  port: AdminRequest['port'],
): Promise<void> {
  const address = request.socket.remoteAddress ?? 'unknown';
  const { authorization } = request.headers;
  const reason = authorization === undefined ? '' : await readReason(request);
  const answer = await admin.ask({ port, address, authorization, reason });
  switch (answer.attempt) {
    case 'no token is set':
      sendError(response, 403, 'No ADMIN_TOKEN is set: this route is closed.');
      return;
    case 'too many failures':
      response.setHeader('Retry-After', answer.retryAfter);
      sendError(response, 429, 'Too many wrong tokens from this address.');
      return;
    case 'no token':
      response.setHeader('WWW-Authenticate', 'Bearer');
      sendError(response, 401, "This route needs Authorization: Bearer with the administrator's token.");
      return;
    case 'wrong token':
      sendError(response, 403, 'The token is wrong.');
      return;
    case 'accepted':
      sendJson(response, 200, {
        status: 'shutdown_initiated',
        ...(answer.latched ? {} : { latched: false }),
      });
  }
}

/**
 * The reason in the body, if there is one. An emergency is not put off for a body that is slow, large or no JSON, nor
 * for a missing Content-Type: then there is no reason on record, but the service stops.
 */
async function readReason(request: IncomingMessage): Promise<string> {
  let text = '';
  request.on('data', (chunk: Buffer) => {
    if (text.length < MOST_BODY_BYTES) text += chunk.toString();
  });
  await within(BODY_WAIT_MS, once(request, 'end')).catch(() => false);
  try {
    const body: unknown = JSON.parse(text);
    const reason = typeof body === 'object' && body !== null && 'reason' in body ? body.reason : '';
    return typeof reason === 'string' ? reason.slice(0, MOST_REASON_CHARACTERS) : '';
  } catch {
    return '';
  }
}
