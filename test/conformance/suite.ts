import type { Observed, Scenario } from './scenario.ts';
import { CannotRun, Subject } from './subject.ts';

/** How often a scenario is tried that could not be played, because the machine was too slow for it or a port was taken. */
const TRIES = 3;

export interface Verdict extends Observed {
  /** False when it could not be played; the outcome then says why. */
  readonly played: boolean;
  readonly name: string;
  readonly promise: string;
  readonly ideal: string;
  readonly passed: number;
  readonly runs: number;
}

/** Plays one scenario with a fresh process. @throws CannotRun when it could not be played */
export async function play(scenario: Scenario, command: string): Promise<Observed> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await playOnce(scenario, command);
    } catch (error) {
      if (!(error instanceof CannotRun) || attempt === TRIES) throw error;
    }
  }
}

async function playOnce(scenario: Scenario, command: string): Promise<Observed> {
  if ('start' in scenario) return scenario.start(command);
  const subject = await Subject.answering(command, scenario.env);
  try {
    return await scenario.play(subject);
  } finally {
    await subject.dispose();
  }
}

export interface SuiteOptions {
  readonly command: string;
  readonly scenarios: readonly Scenario[];
  /** How often each is played; it passes when it passes each time. */
  readonly runs: number;
  /** How many are played at a time. */
  readonly jobs: number;
  /** Hears of each verdict as it comes. */
  readonly onVerdict: (verdict: Verdict, done: number) => void;
}

/** Plays all scenarios, a few at a time. @returns the verdicts in the order of the scenarios */
export async function playAll({
  command,
  scenarios,
  runs,
  jobs,
  onVerdict,
}: SuiteOptions): Promise<Verdict[]> {
  const verdicts: Verdict[] = [];
  const left = [...scenarios.entries()];
  let done = 0;
  await Promise.all(Array.from({ length: jobs }, work));
  return verdicts;

  async function work(): Promise<void> {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      const [index, scenario] = next;
      const verdict = await judge(scenario, command, runs);
      verdicts[index] = verdict;
      done += 1;
      onVerdict(verdict, done);
    }
  }
}

async function judge(scenario: Scenario, command: string, runs: number): Promise<Verdict> {
  const { name, promise, ideal } = scenario;
  const seen: Observed[] = [];
  try {
    for (let run = 0; run < runs; run += 1) seen.push(await play(scenario, command));
  } catch (error) {
    if (!(error instanceof CannotRun)) throw error;
    const outcome = `could not be played: ${error.message}`;
    return { name, promise, ideal, pass: false, played: false, outcome, passed: 0, runs };
  }
  const failed = seen.filter(({ pass }) => !pass);
  const outcome = (failed[0] ?? seen[0])?.outcome ?? '';
  const pass = failed.length === 0;
  return { name, promise, ideal, pass, played: true, outcome, passed: runs - failed.length, runs };
}

const LARGE_BYTES = 20 * 1024 * 1024;

/** Asks for each route once. @throws CannotRun with what is wrong with one of them */
export async function checkRoutes(command: string): Promise<void> {
  const subject = await Subject.answering(command);
  try {
    await check('GET', '/', (body) => body.length > 0, 'a body');
    await check('GET', '/slow?ms=10', () => true, '');
    await check('GET', '/stream?ms=10', (body) => body.endsWith('last\n'), 'a body that ends with "last"');
    await check('GET', '/block?ms=10', (body) => body.endsWith('last\n'), 'a body that ends with "last"');
    await check('GET', '/large', (body) => body.length === LARGE_BYTES, `a body of ${LARGE_BYTES} bytes`);
    await check('POST', '/upload', (body) => body.includes('5'), 'the number of bytes that came');
    const hanging = await (await subject.open()).get('/hang').answer({ ms: 300 });
    if (hanging.status !== undefined) throw new CannotRun(`GET /hang: want no answer, got ${hanging.status}`);
  } finally {
    await subject.dispose();
  }

  async function check(
    method: string,
    path: string,
    isRight: (body: string) => boolean,
    want: string,
  ): Promise<void> {
    const wire = await subject.open();
    if (method === 'POST') wire.request(method, path, { 'Content-Length': '5' }).write('hello');
    else wire.get(path);
    const answer = await wire.answer({ ms: 10_000 });
    if (answer.status !== 200)
      throw new CannotRun(`${method} ${path}: want 200, got ${answer.status ?? answer.lost}`);
    if (!isRight(answer.body)) throw new CannotRun(`${method} ${path}: want ${want}, got another one`);
  }
}
