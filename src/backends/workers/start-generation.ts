import type { Logger } from 'pino';
import { messageOf } from '../../error.ts';
import { ExitCode, StartError } from '../../exit-code.ts';
import { within } from '../../platform/deadline.ts';
import { backOff } from '../back-off.ts';
import type { Plan } from './plan.ts';
import type { StartFailure, WorkerHandle } from './worker-handle.ts';

/** A worker that dies before it is ready, without a word, is tried so often. */
const MOST_ATTEMPTS = 5;

/** Makes processes, and ends them. */
export interface Spawner {
  readonly log: Logger;
  /** Aborted when there shall be no more processes. */
  readonly stop: AbortSignal;
  /** @throws the system's error */
  spawn(plan: Plan, slot: number): WorkerHandle;
  /** Ends a worker that is of no use. */
  end(worker: WorkerHandle): void;
}

/** Starts a whole generation. @throws StartError when one of it does not become ready; then none of it is left */
export async function startGeneration(spawner: Spawner, plan: Plan): Promise<WorkerHandle[]> {
  const attempts = await Promise.allSettled(
    Array.from({ length: plan.config.workers }, (_, slot) => startWorker(spawner, plan, slot)),
  );
  const workers = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
  const failed = attempts.find((attempt) => attempt.status === 'rejected');
  if (failed === undefined) return workers;
  // A stop has told them already.
  if (!spawner.stop.aborted) for (const worker of workers) spawner.end(worker);
  throw failed.reason;
}

async function startWorker(spawner: Spawner, plan: Plan, slot: number): Promise<WorkerHandle> {
  for (let attempt = 1; ; attempt += 1) {
    const { worker, failure } = await tryToStart(spawner, plan, slot);
    if (spawner.stop.aborted) throw new StartError('the service is stopping', ExitCode.Ok);
    if (worker !== undefined) return worker;
    // One that says why will say it again; one that just dies may have been unlucky.
    if (failure.exitCode !== undefined || attempt === MOST_ATTEMPTS) {
      const tries = failure.exitCode === undefined ? `, ${attempt} times in a row` : '';
      throw new StartError(`${failure.message}${tries}`, failure.exitCode ?? ExitCode.Internal);
    }
    spawner.log.error(`${failure.message}: trying again`);
    await backOff(attempt, spawner.stop);
  }
}

type Started =
  | { readonly worker: WorkerHandle; readonly failure?: undefined }
  | { readonly worker?: undefined; readonly failure: StartFailure };

/** One attempt. A worker that is not ready in time is gone when this resolves, or about to be. */
export async function tryToStart(spawner: Spawner, plan: Plan, slot: number): Promise<Started> {
  let worker: WorkerHandle;
  try {
    worker = spawner.spawn(plan, slot);
  } catch (error) {
    return {
      failure: { message: `the worker could not be started: ${messageOf(error)}`, exitCode: undefined },
    };
  }
  const failure = await becomeReady(worker, plan.config.startTimeoutMs);
  if (failure === undefined) return { worker };
  // A stop ends it in its own way.
  if (!spawner.stop.aborted) spawner.end(worker);
  return { failure };
}

/** Undefined when it is ready in time. */
async function becomeReady(worker: WorkerHandle, timeoutMs: number): Promise<StartFailure | undefined> {
  let outcome: { failure: StartFailure | undefined } | undefined;
  await within(
    timeoutMs,
    worker.ready.then((failure) => {
      outcome = { failure };
    }),
  );
  const late = {
    message: `the worker was not ready after ${timeoutMs / 1000}s`,
    exitCode: ExitCode.Internal,
  };
  return outcome === undefined ? late : outcome.failure;
}
