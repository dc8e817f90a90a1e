import type { AuditLog } from '../audit/audit-log.ts';
import type { Exchange, Outcome } from './exchange.ts';
import { record } from './request-record.ts';

/** The administrator's route of the service's own port, whose answer never waits for the audit log. */
export const EMERGENCY_PATH = '/admin/emergency-shutdown';

/** Puts requests on record. Without an audit log every call does nothing. */
export class RequestAudit {
  #log: AuditLog | undefined;

  /** Records go to this log from now on: the server is made before the log is opened. */
  use(log: AuditLog): void {
    this.#log = log;
  }

  /** Whether an answer may leave only when `keep` has resolved to true. */
  get isStrict(): boolean {
    return this.#log?.mode === 'strict';
  }

  /**
   * Puts an answer on record before it leaves.
   * @param whole whether nothing of it comes after what is about to leave
   * @returns false when it could not be put on record: then it must not leave
   */
  keep(exchange: Exchange, whole: boolean, status: number): Promise<boolean> {
    // What is lost goes on record when it ends, and nothing of it will leave.
    if (this.#log === undefined || exchange.isLost) return Promise.resolve(true);
    record(this.#log, whole ? 'request' : 'answer', exchange, status, whole ? 'completed' : 'begun');
    return this.#log.kept().then((kept) => {
      if (whole && kept) exchange.isOnRecord = true;
      // Control never needs the audit log: an administrator's answer leaves all the same.
      return kept || exchange.path === EMERGENCY_PATH;
    });
  }

  /** Puts a request on record that has ended, unless its whole answer is on record already. */
  ended(exchange: Exchange, outcome: Outcome, nowMs?: number): void {
    if (this.#log === undefined) return;
    if (exchange.isOnRecord && outcome === 'completed') return;
    record(this.#log, 'request', exchange, exchange.status, outcome, nowMs);
  }

  /** Sums up the requests that were refused since the last call. */
  refused(count: number): void {
    this.#log?.record('refused', { count });
  }
}
