import { writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { type RecorderMemory, readSlots, STALL_MS } from './flight-recorder.ts';

/*
 * The thread of a flight recorder. It sleeps until the main thread's beat, and when none comes it writes down what
 * was in flight: the main thread cannot, its loop is blocked. It also sees that the supervisor is gone.
 */

const { beats, slots, fd, supervisor } = workerData as RecorderMemory & { fd: number; supervisor: number };
const cell = new Int32Array(beats);

for (let seen = Atomics.load(cell, 0); ; seen = Atomics.load(cell, 0)) {
  if (Atomics.wait(cell, 0, seen, STALL_MS) !== 'timed-out') continue;
  if (process.ppid !== supervisor) process.kill(process.pid, 'SIGKILL');
  try {
    writeSync(fd, `${JSON.stringify(readSlots(slots))}\n`);
  } catch {
    // Nobody reads any more.
  }
}
