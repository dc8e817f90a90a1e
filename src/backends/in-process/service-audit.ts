import type { Logger } from 'pino';
import { AuditLog } from '../../audit/audit-log.ts';
import { auditFile, type Config } from '../../config/settings.ts';
import { messageOf } from '../../error.ts';
import { ExitCode, StartError } from '../../exit-code.ts';
import type { State } from '../../lifecycle/lifecycle.ts';
import type { Attempt } from '../../ops/admin.ts';
import { readAuditKey } from '../../platform/secrets.ts';

/** What the service puts on record of its own life, and how. With `AUDIT_LOG=off` every call does nothing. */
export class ServiceAudit {
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
    const file = auditFile(config);
    const key = readAuditKey(config);
    if (file === undefined) {
      this.#operational.info('Audit log: off');
      return;
    }
    try {
      this.#audit = AuditLog.open({
        file,
        mode: config.auditMode,
        key,
        joins: writer === 'one of several',
        lost: this.#lost,
        // Control never needs the audit log: what it cannot take is kept here.
        fallback: (line) => this.#operational.warn(`Not in the audit log: ${line}`),
      });
    } catch (error) {
      throw new StartError(
        `AUDIT_LOG: want a log that can be written, got "${file}": ${messageOf(error)}`,
        ExitCode.AuditLost,
        { cause: error },
      );
    }
    const { unclean, tornBytes, aside, missing } = this.#audit.recovery;
    if (missing !== undefined) {
      const seal = `${missing.slice(0, 12)}…`;
      this.#operational.warn(`The audit log lacks the seal that was kept (${seal}): its end was cut off`);
    }
    if (unclean) {
      const torn = tornBytes > 0 ? `; ${tornBytes} torn bytes were set aside in ${aside}` : '';
      this.#operational.warn(`The audit log was not closed by the run before this one${torn}`);
    }
    this.#operational.info(
      `Audit log opened: ${file} (${config.auditMode}${key === undefined ? '' : ', keyed'})`,
    );
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
