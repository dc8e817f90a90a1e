import { readEnvironment, type Variables, withSystemd } from '../config/environment.ts';
import { type Config, ConfigError, isToken, parseConfig } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { readRun } from '../lifecycle/last-shutdown.ts';
import { type Status, statusFrom } from '../ops/status.ts';

/** How long the ops server may take to answer a command. */
export const ANSWER_MS = 2_000;

/** The configuration of a command: from the same environment and `.env` as the service's. @throws ConfigError */
export function commandConfig(): Config {
  return parseConfig(readEnvironment());
}

/**
 * The configuration of a command that controls a running service. A mistake in settings, which the service may not
 * have read yet, must not keep an operator from stopping it: then only where the service is, and the token, count.
 */
export function controlConfig(): Config {
  let variables: Variables = withSystemd(process.env);
  try {
    variables = readEnvironment();
    return parseConfig(variables);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const { STATE_DIR, PID_FILE, ADMIN_TOKEN, ADMIN_TOKEN_FILE } = variables;
    const token = ADMIN_TOKEN_FILE || !isToken(ADMIN_TOKEN ?? '') ? { ADMIN_TOKEN_FILE } : { ADMIN_TOKEN };
    return parseConfig({ STATE_DIR, PID_FILE, ...token });
  }
}

/** The address that the running service has noted, or else the one in the settings. Undefined when it is off. */
export function opsServer({ stateDir, opsHost, opsPort }: Config): string | undefined {
  const host = opsHost.includes(':') ? `[${opsHost}]` : opsHost;
  return readRun(stateDir)?.operator_door ?? (opsPort === 'off' ? undefined : `http://${host}:${opsPort}`);
}

/** Of a request, what is behind "fetch failed". */
export function noAnswer(url: string | undefined, error: unknown): string {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  return `No answer from the ops server at ${url}: ${messageOf(cause)}`;
}

/** @throws Error when no ops server of ours answers there in time */
export async function fetchStatus(url: string): Promise<Status> {
  const response = await fetch(`${url}/status`, { signal: AbortSignal.timeout(ANSWER_MS) });
  if (!response.ok) throw new Error(`${url}/status answered ${response.status}`);
  const status: unknown = await response.json();
  if (typeof status !== 'object' || status === null || !('state' in status)) {
    throw new Error(`${url}/status is not the ops server of this service`);
  }
  return statusFrom(status as Status);
}
