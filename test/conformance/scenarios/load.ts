import { setTimeout as delay } from 'node:timers/promises';
import { LedgerClient, type LoadOptions } from '../../support/ledger-client.ts';
import { isCleanExit, type Observed, type Scenario, saw, say, sayExit } from '../scenario.ts';
import { CannotRun, type Subject } from '../subject.ts';

const CLIENTS = 50;
/** Before the signal, so that it comes in the middle of the load. */
const ANSWERS_BEFORE = 500;
const WARM_UP_MS = 10_000;
const EXIT_MS = 5_000;
/** A machine that is busy with other things makes an answer slow, which is not what these scenarios judge. */
const ANSWER_MS = 20_000;

/** Clients in a closed loop which open a new connection when they are told to, and an account of each request. */
function load(
  name: string,
  ideal: string,
  options: Omit<LoadOptions, 'port' | 'connections'>,
  stop: (subject: Subject) => Promise<string | undefined>,
): Scenario {
  return { name, promise: 'load', ideal, play };

  async function play(subject: Subject): Promise<Observed> {
    let answers = 0;
    const client = LedgerClient.start({
      ...options,
      port: subject.port,
      connections: CLIENTS,
      timeoutMs: ANSWER_MS,
      onAnswer: () => {
        answers += 1;
      },
    });
    const endMs = performance.now() + WARM_UP_MS;
    while (answers < ANSWERS_BEFORE && performance.now() < endMs) await delay(10);
    if (answers < ANSWERS_BEFORE) {
      await client.stop();
      throw new CannotRun(`only ${answers} requests were answered in ${WARM_UP_MS / 1000} s`);
    }
    const broken = await stop(subject);
    const exit = await subject.exit(EXIT_MS);
    const ledger = await client.stop();
    const others = [...ledger.statuses.keys()].filter((status) => status !== 200 && status !== 503);
    return saw(
      broken === undefined && isCleanExit(exit) && ledger.lost === 0 && others.length === 0,
      `${ledger}; ${sayExit(exit, subject.signalledMs)}${broken ? `; ${broken}` : ''}`,
    );
  }
}

/** While the clients go on, the stop waits for an upload; then the upload ends. */
async function stopWithUpload(subject: Subject): Promise<string | undefined> {
  const held = await subject.hold();
  await subject.stopping();
  await delay(300);
  const upload = await held.finish();
  return upload.status === 200 ? undefined : `upload: ${say(upload)}`;
}

async function stop(subject: Subject): Promise<undefined> {
  subject.signal('SIGTERM');
}

const LOST = `under ${CLIENTS} clients in a closed loop no request is lost`;

export const loadScenarios: readonly Scenario[] = [
  load('closed-loop', LOST, { path: '/' }, stop),
  load(
    'closed-loop-uploads',
    `${LOST}, POST with a body of 10 kB`,
    { path: '/upload', method: 'POST', body: 'x'.repeat(10_000) },
    stop,
  ),
  load(
    'closed-loop-to-the-end-of-a-drain',
    `${LOST}, not at the end of a drain that all have knocked at either`,
    { path: '/' },
    stopWithUpload,
  ),
  load(
    'closed-loop-of-new-connections',
    `${LOST}, each on a connection of its own`,
    { path: '/', headers: { Connection: 'close' } },
    stop,
  ),
];
