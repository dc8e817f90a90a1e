import { readSync } from 'node:fs';
import { METHODS } from 'node:http';
import type { OpenRequest } from '../../ops/status.ts';
import { openMemoryFile } from '../../platform/memory-file.ts';

/*
 * What a worker has in flight, in a file that both the worker and the controller hold open. It outlives the worker,
 * however that ends, and it has no name: nothing is left of it when both are gone.
 */

/** Requests that are named at most; while more are in flight the others are counted. */
const SLOTS = 1_024;
/**
 * The file: a head, then for each slot the number of the last request that has ended in it, then the slots. A slot
 * with a number that has not ended is in flight. Only the worker's main thread writes the ends, so what its other
 * thread writes late cannot bring back a request that has ended.
 */
export const LAYOUT = {
  slots: SLOTS,
  /** In the head: how many requests have no slot, when the worker's clock began, what its ids begin with. */
  unnamedAt: 0,
  originAt: 8,
  runAt: 16,
  endsAt: 256,
  slotsAt: 256 + SLOTS * 4,
  /** In a slot: number, length of the path, method, length of a given id, when it was admitted, path, given id. */
  slotBytes: 384,
  lengthAt: 4,
  methodAt: 6,
  idLengthAt: 7,
  begunAt: 8,
  pathAt: 16,
  pathBytes: 240,
  idAt: 256,
} as const;
const FILE_BYTES = LAYOUT.slotsAt + SLOTS * LAYOUT.slotBytes;
/** What was in flight, the oldest first, and how many more of which nothing else is known. */
export interface Flight {
  /** By the id of the worker's own: one that a proxy has given may be that of several requests. */
  readonly requests: ReadonlyMap<string, OpenRequest>;
  readonly unnamed: number;
}

/** Makes the file. @param elsewhere a directory for systems without one in memory @throws the system's error */
export function openFlightFile(elsewhere: string): number {
  return openMemoryFile(FILE_BYTES, elsewhere);
}

/** Milliseconds of the monotonic clock, which all processes of a machine share. */
export function machineMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export function readFlight(fd: number): Flight {
  const bytes = Buffer.alloc(FILE_BYTES);
  readSync(fd, bytes, 0, FILE_BYTES, 0);
  const run = bytes.toString('latin1', LAYOUT.runAt, bytes.indexOf(0, LAYOUT.runAt));
  const nowMs = machineMs() - bytes.readDoubleLE(LAYOUT.originAt);
  const requests: [ownId: string, OpenRequest][] = [];
  for (let slot = 0; slot < SLOTS; slot += 1) {
    const at = LAYOUT.slotsAt + slot * LAYOUT.slotBytes;
    const number = bytes.readUInt32LE(at);
    if (number === 0 || number === bytes.readUInt32LE(LAYOUT.endsAt + slot * 4)) continue;
    const length = bytes.readUInt16LE(at + LAYOUT.lengthAt);
    const start = at + LAYOUT.pathAt;
    const path = bytes.toString('latin1', start, start + Math.min(length, LAYOUT.pathBytes));
    const idStart = at + LAYOUT.idAt;
    const ownId = `${run}-${number.toString(36)}`;
    const given = bytes.toString('latin1', idStart, idStart + bytes.readUInt8(at + LAYOUT.idLengthAt));
    const request: OpenRequest = {
      id: given || ownId,
      method: METHODS[bytes.readUInt8(at + LAYOUT.methodAt)] ?? '',
      path: length > LAYOUT.pathBytes ? `${path}…` : path,
      age_ms: Math.round(nowMs - bytes.readDoubleLE(at + LAYOUT.begunAt)),
      phase: 'working',
    };
    requests.push([ownId, request]);
  }
  requests.sort(([, a], [, b]) => b.age_ms - a.age_ms);
  return { requests: new Map(requests), unnamed: bytes.readUInt32LE(LAYOUT.unnamedAt) };
}
