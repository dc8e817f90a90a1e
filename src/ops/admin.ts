import { createHash, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { within } from '../platform/deadline.ts';
import type { Context } from '../server/context.ts';
import { sendError, sendJson } from '../server/response.ts';

/** After this many wrong tokens within the window an address has to wait. */
const MOST_FAILURES = 5;
const WINDOW_MS = 60_000;
/** Past this many addresses the oldest is forgotten, so that a flood of them cannot fill the memory. */
const MOST_ADDRESSES = 10_000;
const MOST_BODY_CHARACTERS = 8 * 1024;
const MOST_REASON_CHARACTERS = 500;
const BODY_WAIT_MS = 1_000;

/** How an attempt to use the administrator's routes ended. */
export type Attempt = 'accepted' | 'no token' | 'wrong token' | 'too many failures' | 'no token is set';

/** A request to an administrator's route, as plain data. */
export interface AdminRequest {
  /** The port it came on. */
  readonly port: 'service' | 'ops';
  readonly address: string;
  /** The request's. */
  readonly id: string;
  readonly authorization: string | undefined;
  /** Empty when the client gave none. */
  readonly reason: string;
}

export type AdminAnswer =
  | { readonly attempt: 'accepted' /** Whether the latch is on disk. */; readonly latched: boolean }
  | { readonly attempt: Exclude<Attempt, 'accepted'> /** Seconds. */; readonly retryAfter: number };

export interface Admin {
  /** Decides about a request, and does what an accepted one asks for. */
  ask(request: AdminRequest): Promise<AdminAnswer>;
}

/** Who counts as one when wrong tokens are counted. */
type Asker = Pick<AdminRequest, 'port' | 'address'>;

/**
 * Checks `Authorization: Bearer` against the administrator's token. Wrong tokens count by port and address. The ops
 * server always accepts the right token, because behind a proxy all clients share the operator's address.
 */
export class Credential {
  #digest: Buffer | undefined;
  readonly #failures = new Map<string, number[]>();

  get isSet(): boolean {
    return this.#digest !== undefined;
  }

  set(token: string | undefined): void {
    this.#digest = token === undefined ? undefined : digest(token);
  }

  check({ port, address, authorization }: Omit<AdminRequest, 'id' | 'reason'>): Attempt {
    if (this.#digest === undefined) return 'no token is set';
    const token = bearer(authorization);
    // Digests have one length, so that the time it takes says nothing about the token's.
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

const REFUSALS = {
  'no token is set': [403, 'No ADMIN_TOKEN is set: this route is closed.'],
  'no token': [401, "This route needs Authorization: Bearer with the administrator's token."],
  'wrong token': [403, 'The token is wrong.'],
  'too many failures': [429, 'Too many wrong tokens from this address.'],
} as const;

/** `POST /admin/emergency-shutdown`, on either port. */
export async function emergencyShutdown(
  request: IncomingMessage,
  response: ServerResponse,
  { id, client }: Context,
  admin: Admin,
  port: AdminRequest['port'],
): Promise<void> {
  const { authorization } = request.headers;
  const reason = authorization === undefined ? '' : await readReason(request);
  const answer = await admin.ask({ port, address: client, id, authorization, reason });
  if (answer.attempt === 'accepted') {
    const unlatched = answer.latched ? {} : { latched: false };
    sendJson(response, 200, { status: 'shutdown_initiated', ...unlatched });
    return;
  }
  const [status, message] = REFUSALS[answer.attempt];
  if (status === 401) response.setHeader('WWW-Authenticate', 'Bearer');
  if (status === 429) response.setHeader('Retry-After', answer.retryAfter);
  sendError(response, status, message);
}

/**
 * The reason in the body, if there is one. A body that is slow, large or no JSON does not delay an emergency: the
 * service then stops without a reason on record.
 */
async function readReason(request: IncomingMessage): Promise<string> {
  let text = '';
  request.on('data', (chunk: Buffer) => {
    if (text.length < MOST_BODY_CHARACTERS) text += chunk.toString();
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
