import { writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';

/*
 * The thread of a flight recorder. It copies what is in flight into a file that outlives the process. It also ends a
 * process that stands still although its controller is gone: no other process would.
 *
 * Plain JavaScript: a thread gets no loader that the process may have for TypeScript.
 */

/** @type {import('./flight-recorder.ts').RecorderData} */
const data = workerData;
const { fd, recordMs, controller, orphanedMs } = data;
const { LAYOUT, CELLS, SLOT } = data.names;
const cells = new Int32Array(data.cells);
const states = new Int32Array(data.states);
const slots = new Uint8Array(data.slots);
/** What this thread writes: a copy that the main thread does not change under a write. */
const copy = Buffer.alloc(slots.length);
const head = Buffer.alloc(4);
/** It never changes, so a wait for it is a sleep. */
const never = new Int32Array(new SharedArrayBuffer(4));

/** How often it looks for its controller when nothing comes, and how long the loop may stand still without one. */
const LOOK_MS = 500;

/** So many looks without anything new, then it sleeps until it is woken. To wake it costs more than a few looks. */
const QUIET_LOOKS = 40;

let quiet = 0;
let beat = 0;
let beatMs = performance.now();
let orphanedMsAgo = 0;

for (;;) {
  quiet = record() ? 0 : quiet + 1;
  if (quiet > QUIET_LOOKS) {
    Atomics.store(cells, CELLS.idle, 1);
    // Once more: a record that came before the mark was set has not woken this thread.
    if (!record()) Atomics.wait(cells, CELLS.idle, 1, LOOK_MS);
    Atomics.store(cells, CELLS.idle, 0);
    quiet = 0;
  }
  Atomics.wait(never, 0, 0, recordMs);
  endOrphan();
}

/** Copies what is new. @returns whether there was anything */
function record() {
  let [first, last] = [-1, -1];
  for (let slot = 0; slot < states.length; slot += 1) {
    if (Atomics.load(states, slot) !== SLOT.taken) continue;
    // From here on the main thread strikes it out at its end, also when that comes before it is in the file.
    if (Atomics.compareExchange(states, slot, SLOT.taken, SLOT.inFile) !== SLOT.taken) continue;
    const at = slot * LAYOUT.slotBytes;
    copy.set(slots.subarray(at, at + LAYOUT.slotBytes), at);
    // Ended meanwhile, and perhaps taken anew while it was copied.
    if (Atomics.load(states, slot) !== SLOT.inFile) copy.writeUInt32LE(0, at);
    if (first === -1) first = at;
    last = at + LAYOUT.slotBytes;
  }
  if (first !== -1) write(copy, first, last, LAYOUT.slotsAt + first);
  const unnamed = Atomics.load(cells, CELLS.unnamed);
  const recounted = unnamed !== head.readUInt32LE(0);
  if (recounted) {
    head.writeUInt32LE(unnamed, 0);
    write(head, 0, head.length, LAYOUT.unnamedAt);
  }
  return first !== -1 || recounted;
}

/**
 * @param {Buffer} bytes
 * @param {number} from
 * @param {number} to
 * @param {number} position
 */
function write(bytes, from, to, position) {
  for (let at = from; at < to; ) at += writeSync(fd, bytes, at, to - at, position + at - from);
}

function endOrphan() {
  const nowMs = performance.now();
  const seen = Atomics.load(cells, CELLS.beat);
  if (seen !== beat) {
    beat = seen;
    beatMs = nowMs;
  }
  if (process.ppid === controller) return;
  if (orphanedMsAgo === 0) orphanedMsAgo = nowMs;
  const standsStill = nowMs - beatMs > LOOK_MS;
  if (standsStill && nowMs - orphanedMsAgo > orphanedMs) process.kill(process.pid, 'SIGKILL');
}
