import { readFileSync } from 'node:fs';
import { type Config, ConfigError, isToken, TOKEN_RULE } from '../config/settings.ts';
import { messageOf } from '../error.ts';

/** Bytes. */
const SHORTEST_KEY = 16;

/**
 * The administrator's token: from the setting, or from the file of a Docker secret or a systemd credential. Undefined
 * when neither is set.
 * @throws ConfigError when the file cannot be read or holds no token; the message never shows what it holds
 */
export function readToken({ adminToken, adminTokenFile: file }: Config): string | undefined {
  if (file === undefined) return adminToken;
  const token = readSecret('ADMIN_TOKEN_FILE', file).toString().trim();
  if (isToken(token)) return token;
  throw new ConfigError([
    `ADMIN_TOKEN_FILE: want ${TOKEN_RULE} in "${file}", got ${token.length} characters`,
  ]);
}

/**
 * The key that seals the audit log, which is all bytes of the file; undefined when none is set.
 * @throws ConfigError when the file cannot be read or is too short
 */
export function readAuditKey({ auditKeyFile: file }: Config): Buffer | undefined {
  if (file === undefined) return undefined;
  const key = readSecret('AUDIT_KEY_FILE', file);
  if (key.length >= SHORTEST_KEY) return key;
  throw new ConfigError([
    `AUDIT_KEY_FILE: want ${SHORTEST_KEY} or more bytes in "${file}", got ${key.length}`,
  ]);
}

function readSecret(setting: 'ADMIN_TOKEN_FILE' | 'AUDIT_KEY_FILE', file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new ConfigError([`${setting}: want a file that can be read, got "${file}": ${messageOf(error)}`]);
  }
}
