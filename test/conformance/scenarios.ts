import type { Scenario } from './scenario.ts';
import { finishScenarios } from './scenarios/finish.ts';
import { instantScenarios } from './scenarios/instant.ts';
import { deadlineScenarios, leaveScenarios } from './scenarios/leave.ts';
import { loadScenarios } from './scenarios/load.ts';
import { lockScenarios } from './scenarios/lock.ts';
import { signalScenarios, startScenarios } from './scenarios/signals.ts';

/** All of them, in the order in which they are told. */
export const SCENARIOS: readonly Scenario[] = [
  ...lockScenarios,
  ...instantScenarios,
  ...finishScenarios,
  ...leaveScenarios,
  ...deadlineScenarios,
  ...signalScenarios,
  ...loadScenarios,
  ...startScenarios,
];
