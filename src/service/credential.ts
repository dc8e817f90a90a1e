import { readFileSync } from 'node:fs';
import { type Config, isToken, TOKEN_RULE } from '../config.ts';
import { messageOf } from '../error.ts';
import { ExitCode, StartError } from '../lifecycle/exit-code.ts';

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
