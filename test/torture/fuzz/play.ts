import { connect } from 'node:net';
import type { Case } from './cases.ts';
import { readStrictly } from './reference.ts';

/** One answer of the service. */
export interface Answer {
  readonly status: number;
  /** Names in lower case. */
  readonly fields: ReadonlyMap<string, string>;
}

/** What a connection has seen. */
export interface Played {
  readonly localPort: number;
  readonly received: string;
  /** How it ended: `fin`, the code of an error, or `hangs`. */
  readonly end: string;
  /** Whether we had ended our side before the service ended its own. */
  readonly leftFirst: boolean;
}

/** What the application has written down of a dispatch. */
export interface Dispatch {
  readonly serial: number;
  readonly port: number;
  readonly method: string;
  readonly url: string;
}

/** Whether what comes is let in, as it was while the case was played; `either` when that changed in the middle. */
export type Admission = 'admitted' | 'refused' | 'either';

/** How long nothing may come before a patient client ends its side. */
const QUIET_MS = 80;
/** How long a connection may stay open after the client has ended its side. */
const GIVE_UP_MS = 20_000;

/** An address of this machine for each case: a guarded program is told the client's address, and not its port. */
function addressOf(number: number): string {
  return `127.1.${number >> 8}.${number & 255}`;
}

/**
 * Writes the case to the service and waits for the end of the connection.
 * @param number tells it from others behind the gate; undefined: its port does
 */
export function play({ pieces, ending, plain }: Case, port: number, number?: number): Promise<Played> {
  const { requests, end: reading } = readStrictly(pieces.join(''));
  const methods = requests.map(({ method }) => method);
  return new Promise((resolve) => {
    const from = number === undefined ? {} : { localAddress: addressOf(number) };
    const socket = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true, ...from });
    const chunks: Buffer[] = [];
    let localPort = 0;
    let end: string | undefined;
    let leftFirst = false;
    let quiet: NodeJS.Timeout | undefined;
    const giveUp = setTimeout(() => over('hangs'), GIVE_UP_MS);
    const over = (how: string): void => {
      clearTimeout(giveUp);
      clearTimeout(quiet);
      socket.destroy();
      end ??= how;
      resolve({ localPort, received: Buffer.concat(chunks).toString('latin1'), end, leftFirst });
    };
    const leave = (): void => {
      clearTimeout(quiet);
      if (end === undefined) leftFirst = true;
      socket.end();
    };
    const waitForQuiet = (): void => {
      clearTimeout(quiet);
      // Whose requests are all to be answered can wait for it, however slow the machine is.
      quiet = setTimeout(leave, plain ? GIVE_UP_MS / 2 : QUIET_MS);
    };
    const write = (index: number): void => {
      const piece = pieces[index];
      if (socket.destroyed || end !== undefined) return;
      if (piece !== undefined) {
        // In the next turn of the loop, so that it is a read of its own at the other end more often than not.
        socket.write(Buffer.from(piece, 'latin1'), () => setImmediate(write, index + 1));
      } else if (ending === 'rude') over('closed by ourselves');
      else if (ending === 'hasty') leave();
      else waitForQuiet();
    };
    socket.on('connect', () => {
      localPort = number ?? socket.localPort ?? 0;
      write(0);
    });
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      if (ending !== 'patient' || quiet === undefined) return;
      const whole = reading === 'nothing left' && finals(Buffer.concat(chunks).toString('latin1'), methods);
      if (whole !== false && whole >= requests.length) leave();
      else waitForQuiet();
    });
    socket.on('end', () => {
      end ??= 'fin';
      over('fin');
    });
    socket.on('error', (error: NodeJS.ErrnoException) => over(error.code ?? error.message));
    socket.on('close', () => over('closed'));
  });
}

/** What a program is asked for behind the gate, when the target was a whole URL. */
function pathOf(target: string): string {
  const path = target.replace(/^[a-z][a-z\d+.-]*:\/\/[^/?]*/i, '');
  return path.startsWith('/') ? path : `/${path}`;
}

function finals(received: string, methods: readonly string[]): number {
  return answersIn(received, methods).answers.length;
}

/**
 * What is wrong with what was seen, one sentence each.
 * @param dispatches of this connection, in the order in which the application got them
 */
export function judge(
  { pieces, plain, ending }: Case,
  played: Played,
  dispatches: readonly Dispatch[],
  admission: Admission,
): string[] {
  const { requests, end: reading } = readStrictly(pieces.join(''));
  const { answers, left } = answersIn(
    played.received,
    requests.map(({ method }) => method),
  );
  const wrong: string[] = [];
  const say = (condition: boolean, what: string): void => {
    if (condition) wrong.push(what);
  };

  say(played.end === 'hangs', 'the connection stays open');
  // Half an answer must not look like a whole one: that is how it ends when the body of its request breaks off.
  const broken = reading === 'malformed' && dispatches.length > 0;
  say(
    left !== '' && played.end === 'fin' && !broken,
    `what came is no whole answer: ${JSON.stringify(left.slice(0, 300))}`,
  );

  // Nothing that a strict reader does not find may be dispatched, and nothing twice.
  let found = 0;
  for (const { method, url } of dispatches) {
    const index = requests.findIndex(
      (one, at) =>
        at >= found &&
        one.rejected !== true &&
        one.method === method &&
        (one.target === url || pathOf(one.target) === url),
    );
    say(index === -1, `smuggled: ${method} ${url.slice(0, 100)}`);
    if (index !== -1) found = index + 1;
  }
  say(
    admission === 'refused' && dispatches.length > 0,
    `${dispatches.length} dispatched behind a closed gate`,
  );

  // One answer a request, and one for what is none: also for the empty lines that may stand before one.
  const most = requests.length + (reading === 'nothing left' && requests.length > 0 ? 0 : 1);
  say(answers.length > most, `${answers.length} answers for ${most} requests`);
  const serials = answers.flatMap(({ fields }) => fields.get('x-dispatch') ?? []).map(Number);
  const dispatched = dispatches.map(({ serial }) => serial);
  say(
    serials.some((serial, index) => !dispatched.includes(serial) || serials.indexOf(serial) !== index),
    `answers to ${serials}, dispatched ${dispatched}`,
  );
  say(
    serials.some((serial, index) => index > 0 && serial < (serials[index - 1] ?? 0)),
    `answers out of order: ${serials}`,
  );
  for (const { status, fields } of answers) {
    say(status >= 500 && ![501, 503, 505].includes(status), `an answer of ${status}`);
    if (admission === 'refused' && reading === 'nothing left') {
      say(status !== 503 && status < 400, `${status} behind a closed gate`);
    }
    say(
      admission === 'refused' && status === 503 && fields.get('retry-after') === undefined,
      'a 503 without Retry-After',
    );
  }
  if (plain && admission !== 'either') {
    const least = admission === 'admitted' ? requests.length : Math.min(1, requests.length);
    say(answers.length < least, `${answers.length} answers for ${least} well-formed requests`);
    say(admission === 'refused' && answers.some(({ status }) => status !== 503), 'an answer that is no 503');
    say(played.end !== 'fin', `the connection ended by ${played.end}`);
  }
  // Whoever waits and is no longer heard is told so.
  if (ending === 'patient' && !played.leftFirst && pieces.length > 0 && admission !== 'either') {
    const silent = answers.length + dispatches.length === 0;
    say(silent && played.end === 'fin', 'the connection was closed without a word');
  }
  return wrong;
}

/** The final answers in what was received, and what is left behind the last whole one. */
export function answersIn(received: string, methods: readonly string[]): { answers: Answer[]; left: string } {
  const answers: Answer[] = [];
  for (let at = 0; ; ) {
    const left = received.slice(at);
    const headEnd = left.indexOf('\r\n\r\n');
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(left)?.[1]);
    if (headEnd === -1 || Number.isNaN(status)) return { answers, left };
    const lines = left.slice(0, headEnd).split('\r\n').slice(1);
    const fields = new Map(
      lines.map((line) => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
      }),
    );
    const start = headEnd + 4;
    // What follows is another protocol.
    if (status === 101) return { answers: [...answers, { status, fields }], left: '' };
    let end: number | undefined = start;
    if (status >= 200 && status !== 204 && methods[answers.length] !== 'HEAD') {
      const length = fields.get('content-length');
      if (length !== undefined) end = start + Number(length);
      else if (fields.get('transfer-encoding') === 'chunked') end = chunkedEnd(left, start);
      else end = left.length;
    }
    if (end === undefined || end > left.length) return { answers, left };
    if (status >= 200) answers.push({ status, fields });
    at += end;
  }
}

function chunkedEnd(text: string, start: number): number | undefined {
  for (let at = start; ; ) {
    const lineEnd = text.indexOf('\r\n', at);
    if (lineEnd === -1) return undefined;
    const size = Number.parseInt(text.slice(at, lineEnd), 16);
    at = lineEnd + 2 + size + 2;
    if (size === 0) return at;
  }
}
