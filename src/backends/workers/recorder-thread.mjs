import { writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';

/*
 * The thread of a flight recorder. It sleeps until the main thread's beat, and when none comes it writes down what
 * was in flight: the main thread cannot, its loop is blocked. It also ends a process that
 * stands still although its controller is gone: nobody else would.
 *
 * Plain JavaScript: a thread gets no loader that the process may have for TypeScript.
 */

/** @type {import('./flight-recorder.ts').RecorderData} */
const { beats, slots, layout, stallMs, fd, controller, orphanedMs } = workerData;
const cell = new Int32Array(beats);
const view = new DataView(slots);
const bytes = Buffer.from(slots);

let orphanedSinceMs = 0;

for (let seen = Atomics.load(cell, 0); ; seen = Atomics.load(cell, 0)) {
  if (Atomics.wait(cell, 0, seen, stallMs) !== 'timed-out') continue;
  if (process.ppid !== controller) {
    if (orphanedSinceMs === 0) orphanedSinceMs = performance.now();
    if (performance.now() - orphanedSinceMs > orphanedMs) process.kill(process.pid, 'SIGKILL');
  }
  try {
    writeWhole(Buffer.from(`${JSON.stringify(inFlight())}\n`));
  } catch {
    // Nobody reads any more.
  }
}

/** What is remembered, the oldest first. */
function inFlight() {
  const found = [];
  for (let at = 0; at < slots.byteLength; at += layout.slotBytes) {
    const since = view.getFloat64(at);
    if (since === 0) continue;
    const start = at + layout.textAt;
    const text = bytes.toString('utf8', start, start + view.getUint16(at + layout.lengthAt));
    const [id, method, path] = text.split(' ', 3);
    found.push({ id, method, path, age_ms: Date.now() - since });
  }
  return found.sort((a, b) => b.age_ms - a.age_ms);
}

/** @param {Buffer} line */
function writeWhole(line) {
  for (let done = 0; done < line.length; ) done += writeSync(fd, line, done);
}
