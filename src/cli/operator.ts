import { readEnvironment, type Variables, withSystemd } from '../config/environment.ts';
import { type Config, ConfigError, parseConfig } from '../config/settings.ts';
import { readRun } from '../lifecycle/last-shutdown.ts';
import type { Status } from '../ops/status.ts';

/** How long the ops server may take to answer a command. */
const ANSWER_MS = 2_000;

/** The configuration of a command: from the same environment and `.env` as the service's. @throws ConfigError */
export function commandConfig(): Config {
  return parseConfig(readEnvironment());
}

/**
 * The configuration of a command that controls a running service. A mistake in settings, which the service may not
 * have read yet, must not keep an operator from stopping it: then only what says where the service is counts.
 */
export function controlConfig(): Config {
  let variables: Variables = withSystemd(process.env);
  try {
    variables = readEnvironment();
    return parseConfig(variables);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const { STATE_DIR, PID_FILE } = variables;
    return parseConfig({ STATE_DIR, PID_FILE });
  }
}

/** The address that the running service has noted, or else the one in the settings. Undefined when it is off. */
export function opsServer({ stateDir, opsHost, opsPort }: Config): string | undefined {
  const host = opsHost.includes(':') ? `[${opsHost}]` : opsHost;
  return readRun(stateDir)?.operator_door ?? (opsPort === 'off' ? undefined : `http://${host}:${opsPort}`);
}

/** @throws Error when no ops server of ours answers there in time */
export async function fetchStatus(url: string): Promise<Status> {
  const response = await fetch(`${url}/status`, { signal: AbortSignal.timeout(ANSWER_MS) });
  if (!response.ok) throw new Error(`${url}/status answered ${response.status}`);
  const status: unknown = await response.json();
  if (typeof status !== 'object' || status === null || !('state' in status)) {
    throw new Error(`${url}/status is not the ops server of this service`);
  }
  return status as Status;
}
