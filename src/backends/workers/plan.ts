import { closeSync } from 'node:fs';
import type { Config } from '../../config/settings.ts';
import type { Settings } from '../../control/backend.ts';
import { openSharesFile } from './shares.ts';

/** What a generation is made of: the settings, and the variables they came from, which its processes are given. */
export interface Plan {
  readonly generation: number;
  readonly config: Config;
  readonly variables: NodeJS.ProcessEnv;
  /** The file in which its workers say how many connections each has; a single one needs none. */
  readonly shares: number | undefined;
}

/** @throws the system's error */
export function makePlan(generation: number, { config, variables }: Settings): Plan {
  const { workers, stateDir } = config;
  const shares = workers > 1 ? openSharesFile(workers, stateDir) : undefined;
  return { generation, config, variables, shares };
}

/** No process of the plan is started any more. */
export function forgetPlan({ shares }: Plan): void {
  if (shares !== undefined) closeSync(shares);
}
