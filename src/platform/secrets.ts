import { readFileSync } from 'node:fs';
import { type Config, isToken, TOKEN_RULE } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { ExitCode, StartError } from '../exit-code.ts';

/** Fewer bytes are no key. */
const SHORTEST_KEY = 16;

/**
 * The administrator's token, from the setting or from the file that a Docker secret or a systemd credential puts in
 * place. Undefined when neither is set.
 * @throws StartError 78 when the file cannot be read or holds no token; the message never shows what it holds
 */
export function readToken({ adminToken, adminTokenFile }: Config): string | undefined {
  if (adminTokenFile === undefined) return adminToken;
  let token: string;
  try {
    token = readFileSync(adminTokenFile, 'utf8').trim();
  } catch (error) {
    throw new StartError(
      `ADMIN_TOKEN_FILE: want a file that can be read, got "${adminTokenFile}": ${messageOf(error)}`,
      ExitCode.Config,
    );
  }
  if (!isToken(token)) {
    throw new StartError(
      `ADMIN_TOKEN_FILE: want ${TOKEN_RULE} in "${adminTokenFile}", got ${token.length} characters`,
      ExitCode.Config,
    );
  }
  return token;
}

/**
 * The key that seals the audit log; undefined when none is set. It is the file's bytes, all of them.
 * @throws StartError 78 when the file cannot be read or is too short
 */
export function readAuditKey({ auditKeyFile }: Config): Buffer | undefined {
  if (auditKeyFile === undefined) return undefined;
  let key: Buffer;
  try {
    key = readFileSync(auditKeyFile);
  } catch (error) {
    throw new StartError(
      `AUDIT_KEY_FILE: want a file that can be read, got "${auditKeyFile}": ${messageOf(error)}`,
      ExitCode.Config,
    );
  }
  if (key.length < SHORTEST_KEY) {
    throw new StartError(
      `AUDIT_KEY_FILE: want ${SHORTEST_KEY} or more bytes in "${auditKeyFile}", got ${key.length}`,
      ExitCode.Config,
    );
  }
  return key;
}
