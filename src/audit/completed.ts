import { open } from 'node:fs/promises';

/** What has been written lately is near the end. */
const TAIL_BYTES = 4 * 1024 * 1024;
/** From a record's id to its outcome; the handler's own fields come behind it. */
const RECORD = /^id":"([^"]*)".*?,"duration_ms":[\d.]+,"outcome":"(\w+)"/;

/**
 * The ids of requests that the log's file has on record as completed, of those that begin so and were recorded lately.
 * In strict mode an answer is on record before it leaves: its request may still be in flight.
 * @throws the system's error
 */
export async function completedLately(file: string, idsBegin: string): Promise<ReadonlySet<string>> {
  const ids = new Set<string>();
  const handle = await open(file, 'r');
  try {
    const { size } = await handle.stat();
    const from = Math.max(0, size - TAIL_BYTES);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(size - from), 0, size - from, from);
    const text = buffer.toString('latin1', 0, bytesRead);
    // In `id`, or in `own_id` behind one that a proxy has given.
    const before = `id":"${idsBegin}`;
    for (let at = text.indexOf(before); at !== -1; at = text.indexOf(before, at + 1)) {
      const line = text.slice(at, text.indexOf('\n', at));
      const [, id = '', outcome] = RECORD.exec(line) ?? [];
      if (outcome === 'completed') ids.add(id);
    }
  } finally {
    await handle.close();
  }
  return ids;
}
