import type { Logger } from 'pino';
import type { AuditLog } from '../audit/audit-log.ts';
import { type Admin, type AdminAnswer, type AdminRequest, type Attempt, Credential } from '../ops/admin.ts';
import { plural } from '../plural.ts';

/** How long refused attempts of one kind are counted before one line sums them up. */
const SUMMARY_MS = 10_000;

export interface AdministrationParts {
  readonly log: Logger;
  readonly audit: () => AuditLog | undefined;
  /** Locks, latches and stops the service. Resolves to whether the latch is on disk. */
  readonly emergencyShutdown: (reason: string, by: string) => Promise<boolean>;
}

/** Decides about requests to the administrator's routes, whichever process and port they came to. */
export class Administration implements Admin {
  /** Until it is set, the routes are closed. */
  readonly credential = new Credential();
  readonly #parts: AdministrationParts;
  /** Refused attempts since the first one of their kind, which was logged at once. */
  readonly #more = new Map<Attempt, number>();

  constructor(parts: AdministrationParts) {
    this.#parts = parts;
  }

  async ask(request: AdminRequest): Promise<AdminAnswer> {
    const { log, audit, emergencyShutdown } = this.#parts;
    const { address, id, reason } = request;
    const attempt = this.credential.check(request);
    audit()?.record('admin', { action: 'emergency-shutdown', id, client: address, result: attempt });
    if (attempt !== 'accepted') {
      this.#logRefused(attempt, request);
      return { attempt, retryAfter: this.credential.retryAfter(request) };
    }
    log.info({ request: id }, `Administrator's route used from ${address}: ${attempt}`);
    return { attempt, latched: await emergencyShutdown(reason, address) };
  }

  /** Logs the first of a kind at once, and a flood in one line. */
  #logRefused(attempt: Attempt, { address, id }: AdminRequest): void {
    const { log } = this.#parts;
    const more = this.#more.get(attempt);
    this.#more.set(attempt, more === undefined ? 0 : more + 1);
    if (more !== undefined) return;
    log.warn({ request: id }, `Administrator's route used from ${address}: ${attempt}`);
    setTimeout(() => {
      const count = this.#more.get(attempt) ?? 0;
      this.#more.delete(attempt);
      if (count > 0)
        log.warn(
          { attempts: count },
          `Administrator's route refused ${plural(count, 'more time')}: ${attempt}`,
        );
    }, SUMMARY_MS).unref();
  }
}
