import type { Logger } from 'pino';
import { auditFile, type Config } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { ExitCode, StartError } from '../exit-code.ts';
import { readAuditKey } from '../platform/secrets.ts';
import { AuditLog } from './audit-log.ts';

export interface OpenAuditOptions {
  readonly log: Pick<Logger, 'info' | 'warn'>;
  /** Called once when the audit log can no longer be written. */
  readonly lost: (error: Error) => void;
  /** Another process has opened the log already, and this one joins it. */
  readonly joins?: boolean;
}

/**
 * Opens the audit log that the settings name; undefined when it is off.
 * @throws StartError 74 when the log cannot be opened or written, 78 for a bad key
 */
export function openAudit(
  config: Config,
  { log, lost, joins = false }: OpenAuditOptions,
): AuditLog | undefined {
  const file = auditFile(config);
  const key = readAuditKey(config);
  if (file === undefined) {
    if (!joins) log.info('Audit log: off');
    return undefined;
  }
  let audit: AuditLog;
  try {
    audit = AuditLog.open({
      file,
      mode: config.auditMode,
      key,
      joins,
      lost,
      maxBytes: config.auditMaxBytes,
      keep: config.auditKeep,
      warn: (message) => log.warn(message),
      // Control never needs the audit log: what it cannot take is kept here.
      fallback: (line) => log.warn(`Not in the audit log: ${line}`),
    });
  } catch (error) {
    throw new StartError(
      `AUDIT_LOG: want a log that can be written, got "${file}": ${messageOf(error)}`,
      ExitCode.AuditLost,
      { cause: error },
    );
  }
  if (joins) return audit;
  const { unclean, tornBytes, quarantine, missing } = audit.recovery;
  if (missing !== undefined) {
    log.warn(`The audit log lacks the seal that was kept (${missing.slice(0, 12)}…): its end was cut off`);
  }
  if (unclean) {
    const torn = tornBytes > 0 ? `; ${tornBytes} torn bytes were set aside in ${quarantine}` : '';
    log.warn(`The audit log was not closed by the run before this one${torn}`);
  }
  log.info(`Audit log opened: ${file} (${config.auditMode}${key === undefined ? '' : ', keyed'})`);
  return audit;
}
