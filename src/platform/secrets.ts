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
export function readToken({ adminToken, adminTokenFile }: Config): string | undefined {
  if (adminTokenFile === undefined) return adminToken;
  let token: string;
  try {
    token = readFileSync(adminTokenFile, 'utf8').trim();
  } catch (error) {
    throw new ConfigError([
      `ADMIN_TOKEN_FILE: want a file that can be read, got "${adminTokenFile}": ${messageOf(error)}`,
    ]);
  }
  if (!isToken(token)) {
    throw new ConfigError([
      `ADMIN_TOKEN_FILE: want ${TOKEN_RULE} in "${adminTokenFile}", got ${token.length} characters`,
    ]);
  }
  return token;
}

/**
 * The key that seals the audit log, which is all bytes of the file; undefined when none is set.
 * @throws ConfigError when the file cannot be read or is too short
 */
export function readAuditKey({ auditKeyFile }: Config): Buffer | undefined {
  if (auditKeyFile === undefined) return undefined;
  let key: Buffer;
  try {
    key = readFileSync(auditKeyFile);
  } catch (error) {
    throw new ConfigError([
      `AUDIT_KEY_FILE: want a file that can be read, got "${auditKeyFile}": ${messageOf(error)}`,
    ]);
  }
  if (key.length < SHORTEST_KEY) {
    throw new ConfigError([
      `AUDIT_KEY_FILE: want ${SHORTEST_KEY} or more bytes in "${auditKeyFile}", got ${key.length}`,
    ]);
  }
  return key;
}
