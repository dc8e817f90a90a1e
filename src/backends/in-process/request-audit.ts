import type { AuditLog } from '../../audit/audit-log.ts';
import { EMERGENCY_PATH } from '../../ops/admin.ts';
import type { Exchange, Outcome } from '../../server/exchange.ts';

/** Puts requests on record. Without an audit log every call does nothing. */
export class RequestAudit {
  #log: AuditLog | undefined;

  /** The log is opened after the server that this belongs to is made. */
  use(log: AuditLog | undefined): void {
    this.#log = log;
  }

  /** Strict mode: an answer may leave when this resolves to true. */
  async keep(exchange: Exchange, whole: boolean, status: number): Promise<boolean> {
    // Whose client is gone is on record already, and nothing of it will leave.
    if (this.#log === undefined || exchange.over) return true;
    this.#log.add(exchange.auditLine(whole ? 'request' : 'answer', status, whole ? 'completed' : 'begun'));
    const kept = await this.#log.kept();
    exchange.recorded = whole && kept;
    // Control never needs the audit log: an administrator's answer leaves all the same.
    return kept || exchange.path === EMERGENCY_PATH;
  }

  ended(exchange: Exchange, outcome: Outcome): void {
    if (exchange.recorded && outcome === 'completed') return;
    this.#log?.add(exchange.auditLine('request', exchange.status, outcome));
  }

  refused(count: number): void {
    this.#log?.record('refused', { count });
  }
}
