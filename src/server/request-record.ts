// The global of the same name is a getter, which costs as much again as the clock.
import { performance } from 'node:perf_hooks';
import type { AuditLog } from '../audit/audit-log.ts';
import type { Exchange, Outcome } from './exchange.ts';
import { ownId } from './request-id.ts';

/** A longer path is cut in the audit log: what it begins with tells enough. */
const MOST_PATH_CHARACTERS = 2_000;
/** The same for a path that no route has: it may be anything, and a disk is not to be filled with it. */
const MOST_STRAY_CHARACTERS = 200;

// What stands between the fields, and fields of few values with it, as bytes: to write them out of a string for each
// record would take longer, and so would each more of them.
const OWN_ID = Buffer.from('","own_id":"');
const CLIENT = Buffer.from('","client":"');
const TRACE = Buffer.from('","trace":"');
const FIELDS = Buffer.from(',"fields":');
const END = Buffer.from('}');
// The parser takes no method that it does not know.
const methodOf = bytesOf((method: string) => `","method":"${method}","path":`);
const statusOf = bytesOf((status: number) => `,"status":${status},"duration_ms":`);
const outcomeOf = bytesOf((outcome: Outcome | 'begun') => `,"outcome":"${outcome}"`);

/**
 * Puts a request, or an answer that begins to leave, on record. What the client has chosen is written as JSON text, or
 * was checked before: it can neither end the line nor begin another.
 */
export function record(
  log: AuditLog,
  type: 'request' | 'answer',
  exchange: Exchange,
  status: number,
  outcome: Outcome | 'begun',
  nowMs = performance.now(),
): void {
  const { line } = log;
  const { givenId, path, trace, auditText } = exchange;
  line.bytes(openings[type].at(nowMs));
  line.ascii(exchange.id);
  if (givenId !== undefined) {
    // A given id may be that of several requests.
    line.bytes(OWN_ID);
    line.ascii(ownId(exchange.number));
  }
  line.bytes(CLIENT);
  line.ascii(exchange.client);
  if (trace !== undefined) {
    line.bytes(TRACE);
    line.ascii(trace);
  }
  line.bytes(methodOf(exchange.method));
  const most = exchange.pattern !== undefined ? MOST_PATH_CHARACTERS : MOST_STRAY_CHARACTERS;
  line.string(path.length > most ? `${path.slice(0, most)}…` : path);
  line.bytes(statusOf(status));
  // Integers: writing out a fraction takes longer than all the rest of the line.
  const tenths = Math.round((nowMs - exchange.startedMs) * 10);
  line.ascii(String(Math.trunc(tenths / 10)));
  line.ascii('.');
  line.ascii(String(tenths % 10));
  line.bytes(outcomeOf(outcome));
  if (auditText !== undefined) {
    line.bytes(FIELDS);
    line.utf8(auditText);
  }
  line.bytes(END);
  log.endLine();
}

/** The bytes of a text for each of a few values, each made once. */
function bytesOf<T>(textOf: (value: T) => string): (value: T) => Buffer {
  const made = new Map<T, Buffer>();
  return (value) => {
    let bytes = made.get(value);
    if (bytes === undefined) {
      bytes = Buffer.from(textOf(value));
      made.set(value, bytes);
    }
    return bytes;
  };
}

/** How a record begins, up to its id. The time is ISO 8601; within a second only its milliseconds are written anew. */
class Opening {
  readonly #type: string;
  #bytes = Buffer.alloc(0);
  #milliseconds = 0;
  #second = Number.NaN;
  #writtenMs = Number.NEGATIVE_INFINITY;

  constructor(type: string) {
    this.#type = type;
  }

  at(nowMs: number): Buffer {
    if (nowMs - this.#writtenMs >= 1) {
      this.#writtenMs = nowMs;
      this.#write(Date.now());
    }
    return this.#bytes;
  }

  #write(time: number): void {
    const second = Math.floor(time / 1000);
    if (second !== this.#second) {
      this.#second = second;
      const upTo = `{"type":"${this.#type}","time":"${new Date(second * 1000).toISOString().slice(0, -4)}`;
      this.#milliseconds = upTo.length;
      this.#bytes = Buffer.from(`${upTo}000Z","id":"`);
    }
    const rest = time % 1000;
    this.#digit(0, Math.trunc(rest / 100));
    this.#digit(1, Math.trunc(rest / 10) % 10);
    this.#digit(2, rest % 10);
  }

  #digit(place: number, digit: number): void {
    this.#bytes[this.#milliseconds + place] = 0x30 + digit;
  }
}

const openings = { request: new Opening('request'), answer: new Opening('answer') };
