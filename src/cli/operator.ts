import { readEnvironment } from '../config/environment.ts';
import { type Config, ConfigError, parseConfig } from '../config/settings.ts';
import { readRun } from '../lifecycle/last-shutdown.ts';
import type { Status } from '../ops/status.ts';

/** How long the ops server may take to answer a command. */
const ANSWER_MS = 2_000;

/** The configuration a command goes by: the same environment and `.env` as the service's. @throws ConfigError */
export function commandConfig(): Config {
  return parseConfig(commandVariables());
}

/**
 * For the commands that control a service which runs already: a mistake in settings that it may not even have read
 * yet must not keep anybody from stopping it. What says where it is cannot be mistaken; the rest is then the default.
 */
export function controlConfig(): Config {
  try {
    return commandConfig();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const { STATE_DIR, PID_FILE } = tolerantVariables();
    return parseConfig({ STATE_DIR, PID_FILE });
  }
}

function commandVariables(): Record<string, string | undefined> {
  const variables = readEnvironment();
  return { ...variables, STATE_DIR: variables.STATE_DIR || variables.STATE_DIRECTORY };
}

function tolerantVariables(): Record<string, string | undefined> {
  try {
    return commandVariables();
  } catch {
    return { ...process.env, STATE_DIR: process.env.STATE_DIR || process.env.STATE_DIRECTORY };
  }
}

/** Where to ask: what the running service has noted, or else what the settings say. */
export function opsServer({ stateDir, opsHost, opsPort }: Config): string | undefined {
  const host = opsHost.includes(':') ? `[${opsHost}]` : opsHost;
  return readRun(stateDir)?.operator_door ?? (opsPort === 'off' ? undefined : `http://${host}:${opsPort}`);
}

/** @throws Error when nobody answers there in time, or with something else than a status */
export async function fetchStatus(url: string): Promise<Status> {
  const response = await fetch(`${url}/status`, { signal: AbortSignal.timeout(ANSWER_MS) });
  if (!response.ok) throw new Error(`${url}/status answered ${response.status}`);
  const status: unknown = await response.json();
  if (typeof status !== 'object' || status === null || !('state' in status)) {
    throw new Error(`${url}/status is not the ops server of this service`);
  }
  return status as Status;
}
