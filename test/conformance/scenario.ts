import { type Answer, type Outcome, WORDS } from '../support/raw-client.ts';
import type { Subject, TimedExit } from './subject.ts';
import { CannotRun } from './subject.ts';

export type Promised = 'lock' | 'instant' | 'finish' | 'leave' | 'deadline' | 'signals' | 'load' | 'start';

/** What a scenario has shown. */
export interface Observed {
  readonly pass: boolean;
  /** In words and figures. */
  readonly outcome: string;
}

/** A scenario that begins with a server that serves. */
interface ServedScenario {
  readonly name: string;
  readonly promise: Promised;
  /** What a server that loses nothing does. */
  readonly ideal: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly play: (subject: Subject) => Promise<Observed>;
}

/** A scenario about the start, which therefore starts the command itself. */
interface StartScenario extends Omit<ServedScenario, 'play' | 'env'> {
  readonly start: (command: string) => Promise<Observed>;
}

export type Scenario = ServedScenario | StartScenario;

/** How long a server that leaves at once may take: hundreds of times what it needs, less than any time-out. */
export const LEAVE_MS = 2_500;

export function saw(pass: boolean, outcome: string): Observed {
  return { pass, outcome };
}

/** `503, Connection: close`; `reset without an answer` */
export function say(outcome: Outcome): string {
  if (outcome.status === undefined) return outcome.lost;
  const interim = outcome.interim.map((status) => `${status}, then `).join('');
  return `${interim}${outcome.status}${closes(outcome) ? ', Connection: close' : ''}`;
}

/** `closed`; `reset`; `still open` */
export function sayEnd(end: string | undefined): string {
  return end === undefined ? 'still open' : (WORDS[end] ?? end);
}

/** `20 x 503, Connection: close; 3 x reset without an answer` */
export function sayAll(outcomes: readonly Outcome[]): string {
  const counts = new Map<string, number>();
  for (const outcome of outcomes) counts.set(say(outcome), (counts.get(say(outcome)) ?? 0) + 1);
  return [...counts].map(([words, count]) => `${count} x ${words}`).join('; ');
}

export function closes(answer: Answer): boolean {
  return answer.headers.connection?.toLowerCase() === 'close';
}

/** Whether this is a whole 503 which says that the connection ends with it. */
export function isRefusal(outcome: Outcome): outcome is Answer {
  return outcome.status === 503 && closes(outcome);
}

export function isAnswered(outcome: Outcome): boolean {
  return outcome.status === 200 || outcome.status === 503;
}

/** Whether this request is accounted for: answered, or never sent, because the connection was over before. */
export function isAccountedFor(outcome: Outcome): boolean {
  return outcome.status === undefined ? !outcome.sent : isAnswered(outcome);
}

/** `exit 0 after 25 ms` */
export function sayExit(exit: TimedExit | undefined, sinceMs: number): string {
  if (exit === undefined) return 'still running';
  const how = exit.code === null ? `ended by ${exit.signal}` : `exit ${exit.code}`;
  return `${how} after ${Math.max(0, Math.round(exit.atMs - sinceMs))} ms`;
}

/** Exit 0, or the end by the very signal that was sent: some servers raise it again when they are done. */
export function isCleanExit(exit: TimedExit | undefined, signal: NodeJS.Signals = 'SIGTERM'): boolean {
  return exit !== undefined && (exit.code === 0 || exit.signal === signal);
}

/** Waits for a server that has nothing more to do. */
export async function leaves(subject: Subject, sinceMs = subject.signalledMs): Promise<Observed> {
  const exit = await subject.exit(LEAVE_MS);
  const words = exit === undefined ? `still running after ${LEAVE_MS / 1000} s` : sayExit(exit, sinceMs);
  return saw(isCleanExit(exit), words);
}

/** @throws CannotRun when this answer has come before the signal: the machine was too slow for the scenario */
export function assertInFlight(subject: Subject, ...wires: readonly { readonly pending: string }[]): void {
  if (Number.isNaN(subject.signalledMs) && wires.some(({ pending }) => pending !== ''))
    throw new CannotRun('the request that was to be in flight was answered before the signal');
}
