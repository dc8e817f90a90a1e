// The global of the same name is a getter, which costs as much again as the clock.
import { performance } from 'node:perf_hooks';
import type { AuditLog } from '../audit/audit-log.ts';
import type { Exchange, Outcome } from './exchange.ts';
import { ownId } from './request-id.ts';

/** A longer path is cut in the audit log: what it begins with tells enough. */
const MOST_PATH_CHARACTERS = 2_000;
/** The same for a path that no route has: it may be anything, and a disk is not to be filled with it. */
const MOST_STRAY_CHARACTERS = 200;

// What stands between the fields, as bytes: to write it out of a string for each record would take longer.
const TYPE = {
  request: Buffer.from('{"type":"request","time":"'),
  answer: Buffer.from('{"type":"answer","time":"'),
};
const ID = Buffer.from('","id":"');
const OWN_ID = Buffer.from('","own_id":"');
const CLIENT = Buffer.from('","client":"');
const TRACE = Buffer.from('","trace":"');
const METHOD = Buffer.from('","method":"');
const PATH = Buffer.from('","path":');
const STATUS = Buffer.from(',"status":');
const DURATION = Buffer.from(',"duration_ms":');
const OUTCOME = Buffer.from(',"outcome":"');
const FIELDS = Buffer.from('","fields":');
const END = Buffer.from('"}');
const FIELDS_END = Buffer.from('}');

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
  line.bytes(TYPE[type]);
  line.bytes(timestamp(nowMs));
  line.bytes(ID);
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
  line.bytes(METHOD);
  // The parser takes no method that it does not know.
  line.ascii(exchange.method);
  line.bytes(PATH);
  const most = exchange.pattern !== undefined ? MOST_PATH_CHARACTERS : MOST_STRAY_CHARACTERS;
  line.string(path.length > most ? `${path.slice(0, most)}…` : path);
  line.bytes(STATUS);
  line.ascii(String(status));
  line.bytes(DURATION);
  // Integers: writing out a fraction takes longer than all the rest of the line.
  const tenths = Math.round((nowMs - exchange.startedMs) * 10);
  line.ascii(String(Math.trunc(tenths / 10)));
  line.ascii('.');
  line.ascii(String(tenths % 10));
  line.bytes(OUTCOME);
  line.ascii(outcome);
  if (auditText === undefined) line.bytes(END);
  else {
    line.bytes(FIELDS);
    line.utf8(auditText);
    line.bytes(FIELDS_END);
  }
  log.endLine();
}

let stampedMs = Number.NEGATIVE_INFINITY;
let stamp = Buffer.alloc(0);

/** The time as ISO 8601, formatted once per millisecond. */
function timestamp(nowMs: number): Buffer {
  if (nowMs - stampedMs >= 1) {
    stampedMs = nowMs;
    stamp = Buffer.from(new Date().toISOString(), 'latin1');
  }
  return stamp;
}
