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

/** Checks `Authorization: Bearer` against the administrator's token. */
export class Credential {
  #digest: Buffer | undefined;
  readonly #failures = new Map<string, number[]>();

  constructor(token: string | undefined) {
    this.set(token);
  }

  get isSet(): boolean {
    return this.#digest !== undefined;
  }

  /** Only a digest is kept. */
  set(token: string | undefined): void {
    this.#digest = token === undefined ? undefined : digest(token);
  }

  check(address: string, authorization: string | undefined): Attempt {
    if (this.#digest === undefined) return 'no token is set';
    const recent = this.#recentFailures(address);
    if (recent.length >= MOST_FAILURES) return 'too many failures';
    const token = bearer(authorization);
    if (token === undefined) return 'no token';
    // Digests have one length, so the comparison tells nothing about the token's.
    if (timingSafeEqual(digest(token), this.#digest)) return 'accepted';
    this.#failures.delete(address);
    this.#failures.set(address, [...recent, performance.now()]);
    if (this.#failures.size > MOST_ADDRESSES) {
      for (const oldest of this.#failures.keys()) {
        this.#failures.delete(oldest);
        break;
      }
    }
    return 'wrong token';
  }

  /** Seconds until the address may try again. */
  retryAfter(address: string): number {
    const [first] = this.#recentFailures(address);
    return first === undefined ? 0 : Math.ceil((first + WINDOW_MS - performance.now()) / 1000);
  }

  #recentFailures(address: string): number[] {
    const since = performance.now() - WINDOW_MS;
    return (this.#failures.get(address) ?? []).filter((failedMs) => failedMs > since);
  }
}

function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

function bearer(authorization: string | undefined): string | undefined {
  const [scheme, token] = authorization?.split(' ', 2) ?? [];
  return scheme?.toLowerCase() === 'bearer' && token !== undefined && token !== '' ? token : undefined;
}

export interface Admin {
  readonly credential: Credential;
  /** Hears of every attempt. */
  readonly attempted: (attempt: Attempt, address: string) => void;
  /** Locks the service at once, latches it and stops it. Resolves, in bounded time, to whether the latch is on disk. */
  readonly emergencyShutdown: (reason: string, by: string) => Promise<boolean>;
}

export const EMERGENCY_PATH = '/admin/emergency-shutdown';

/** The same on both doors. */
export async function emergencyShutdown(
  request: IncomingMessage,
  response: ServerResponse,
  admin: Admin,
): Promise<void> {
  const address = request.socket.remoteAddress ?? 'unknown';
  const attempt = admin.credential.check(address, request.headers.authorization);
  admin.attempted(attempt, address);
  switch (attempt) {
    case 'no token is set':
      sendError(response, 403, 'No ADMIN_TOKEN is set: this route is closed.');
      return;
    case 'too many failures':
      response.setHeader('Retry-After', admin.credential.retryAfter(address));
      sendError(response, 429, 'Too many wrong tokens from this address.');
      return;
    case 'no token':
      response.setHeader('WWW-Authenticate', 'Bearer');
      sendError(response, 401, "This route needs Authorization: Bearer with the administrator's token.");
      return;
    case 'wrong token':
      sendError(response, 403, 'The token is wrong.');
      return;
    case 'accepted': {
      const reason = await readReason(request);
      const latched = await admin.emergencyShutdown(reason, address);
      sendJson(response, 200, { status: 'shutdown_initiated', ...(latched ? {} : { latched }) });
    }
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
