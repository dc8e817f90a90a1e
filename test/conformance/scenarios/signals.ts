import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import {
  assertInFlight,
  isCleanExit,
  LEAVE_MS,
  leaves,
  type Observed,
  type Scenario,
  saw,
  say,
  sayExit,
} from '../scenario.ts';
import { CannotRun, freePort, START_MS, Subject } from '../subject.ts';

/** One request is in flight; these signals come; it has to be answered and the server to leave. */
function answeredUnder(
  name: string,
  ideal: string,
  signals: readonly NodeJS.Signals[],
  gapMs: number,
): Scenario {
  return {
    name,
    promise: 'signals',
    ideal,
    async play(subject) {
      const wire = (await subject.open()).get('/slow?ms=1500');
      await subject.settled();
      assertInFlight(subject, wire);
      for (const signal of signals) {
        subject.signal(signal);
        await delay(gapMs);
      }
      const answer = await wire.answer();
      const exit = await subject.exit(LEAVE_MS);
      return saw(
        answer.status === 200 && isCleanExit(exit, signals[0]),
        `${say(answer)}; ${sayExit(exit, subject.signalledMs)}`,
      );
    },
  };
}

export const signalScenarios: readonly Scenario[] = [
  answeredUnder(
    'sigterm',
    'SIGTERM: the request in flight gets its 200, then the server leaves',
    ['SIGTERM'],
    0,
  ),
  answeredUnder(
    'sigint',
    'SIGINT: the request in flight gets its 200, then the server leaves',
    ['SIGINT'],
    0,
  ),
  answeredUnder(
    'sigterm-repeated',
    'a second and a third SIGTERM change nothing',
    ['SIGTERM', 'SIGTERM', 'SIGTERM'],
    100,
  ),
  answeredUnder(
    'sigterm-burst',
    'five SIGTERM in a row change nothing',
    ['SIGTERM', 'SIGTERM', 'SIGTERM', 'SIGTERM', 'SIGTERM'],
    0,
  ),
  answeredUnder(
    'sigint-then-sigterm',
    'a SIGTERM after a Ctrl-C changes nothing',
    ['SIGINT', 'SIGTERM'],
    100,
  ),
  {
    name: 'sigint-idle',
    promise: 'signals',
    ideal: 'SIGINT with nothing in flight: exits at once',
    async play(subject) {
      subject.signal('SIGINT');
      const exit = await subject.exit(LEAVE_MS);
      return saw(isCleanExit(exit, 'SIGINT'), sayExit(exit, subject.signalledMs));
    },
  },
  {
    name: 'sigterm-during-start',
    promise: 'signals',
    ideal: 'SIGTERM before it listens: exits, long before a start of 10 s would be over, and never serves',
    async start(command) {
      return playing(await Subject.spawn(command, { START_DELAY_MS: '10000' }), async (subject) => {
        await until(subject, 'starting');
        subject.signal('SIGTERM');
        const exit = await subject.exit(6_000);
        const served = (await subject.open()).end !== 'ECONNREFUSED';
        const words = `${sayExit(exit, subject.signalledMs)}${served ? ', but it accepts connections' : ''}`;
        return saw(isCleanExit(exit) && !served, words);
      });
    },
  },
  {
    name: 'sigterm-as-it-listens',
    promise: 'signals',
    ideal: 'SIGTERM the moment the port takes a connection: exits cleanly, at once',
    async start(command) {
      return playing(await Subject.spawn(command), async (subject) => {
        await subject.accepting();
        subject.signal('SIGTERM');
        return leaves(subject);
      });
    },
  },
];

export const startScenarios: readonly Scenario[] = [
  {
    name: 'start-on-a-taken-port',
    promise: 'start',
    ideal: 'exits non-zero and names the port',
    async start(command) {
      const port = await freePort();
      const holder = createServer();
      await new Promise<void>((resolve) => holder.listen(port, '0.0.0.0', resolve));
      try {
        return await playing(await Subject.spawn(command, {}, port), (subject) =>
          refusesToStart(subject, String(port)),
        );
      } finally {
        holder.close();
      }
    },
  },
  {
    name: 'start-on-a-bad-port',
    promise: 'start',
    ideal: 'exits non-zero and names PORT or its value',
    async start(command) {
      const env = { PORT: 'eighty' };
      return playing(await Subject.spawn(command, env), (subject) =>
        refusesToStart(subject, 'eighty', 'PORT'),
      );
    },
  },
];

async function refusesToStart(subject: Subject, ...names: readonly string[]): Promise<Observed> {
  const beganMs = performance.now();
  const exit = await subject.exit(10_000);
  // What it printed last may still be on its way through the pipe.
  await delay(50);
  const named = names.some((name) => subject.output.includes(name));
  const failed = exit !== undefined && exit.code !== 0;
  return saw(failed && named, `${sayExit(exit, beganMs)}; ${named ? 'names it' : 'does not name it'}`);
}

async function until(subject: Subject, text: string): Promise<void> {
  const endMs = performance.now() + START_MS;
  while (!subject.output.includes(text)) {
    if (performance.now() > endMs || (await subject.exit(10)) !== undefined)
      throw new CannotRun(`with START_DELAY_MS the server must print "${text}" before it waits`);
  }
}

async function playing(subject: Subject, play: (subject: Subject) => Promise<Observed>): Promise<Observed> {
  try {
    return await play(subject);
  } finally {
    await subject.dispose();
  }
}
