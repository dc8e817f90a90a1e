import type { Logger } from 'pino';
import type { AuditLog } from '../../audit/audit-log.ts';
import { openAudit } from '../../audit/open-audit.ts';
import type { Config } from '../../config/settings.ts';
import type { State } from '../../lifecycle/lifecycle.ts';
import { type Attempt, EMERGENCY_PATH } from '../../ops/admin.ts';
import type { Exchange, Outcome } from '../../server/exchange.ts';

/** What the service puts on record, and how. With `AUDIT_LOG=off` every call does nothing. */
export class RequestAudit {
  readonly #operational: Logger;
  readonly #lost: (error: Error) => void;
  #audit: AuditLog | undefined;

  /** @param lost is called once when the audit log can no longer be written */
  constructor(operational: Logger, lost: (error: Error) => void) {
    this.#operational = operational;
    this.#lost = lost;
  }

  /**
   * @param writer one of several leaves what it finds to the one that came before them
   * @throws StartError 74 when the log cannot be opened or written, 78 for a bad key
   */
  open(config: Config, writer: 'sole' | 'one of several'): void {
    const joins = writer === 'one of several';
    this.#audit = openAudit(config, { log: this.#operational, lost: this.#lost, joins });
    this.state('starting');
  }

  get audit(): AuditLog | undefined {
    return this.#audit;
  }

  state(state: State): void {
    this.#audit?.record('state', { state });
  }

  attempt(attempt: Attempt, client: string): void {
    this.#audit?.record('admin', { action: 'emergency-shutdown', client, result: attempt });
  }

  emergency(reason: string, by: string, latched: boolean): void {
    this.#audit?.record('emergency', { by, reason, latched });
  }

  refused(count: number): void {
    this.#audit?.record('refused', { count });
  }

  /** Strict mode: an answer may leave when this resolves to true. */
  async keep(exchange: Exchange, whole: boolean, status: number): Promise<boolean> {
    // Whose client is gone is on record already, and nothing of it will leave.
    if (this.#audit === undefined || exchange.over) return true;
    this.#audit.add(exchange.auditLine(whole ? 'request' : 'answer', status, whole ? 'completed' : 'begun'));
    const kept = await this.#audit.kept();
    exchange.recorded = whole && kept;
    // Control never needs the audit log: an administrator's answer leaves all the same.
    return kept || exchange.path === EMERGENCY_PATH;
  }

  ended(exchange: Exchange, outcome: Outcome): void {
    if (exchange.recorded && outcome === 'completed') return;
    this.#audit?.add(exchange.auditLine('request', exchange.status, outcome));
  }

  reopen(): void {
    this.#audit?.reopen();
  }

  /** For a process that ends in this turn. */
  closeNow(): void {
    this.#audit?.closeNow();
  }

  /** @returns whether everything is on disk */
  async close(): Promise<boolean> {
    return this.#audit === undefined || (await this.#audit.close());
  }
}
