/** What an id that somebody else has made may look like: it goes into answers, logs and the audit log as it is. */
const TAKEN = /^[A-Za-z0-9._:-]{1,128}$/;

// Random enough that ids of two runs, or of two workers, do not meet in one log.
export const RUN = Math.random().toString(36).slice(2, 8).padEnd(6, '0');

/** An id is in each answer. Two digits from a table and the rest made once for all of them cost a tenth of toString. */
const LOW = Array.from({ length: 36 ** 2 }, (_, low) => low.toString(36).padStart(2, '0'));
let high = -1;
let highText = '';
let serial = 0;

/** For an answer to what is no exchange. */
export function newId(): string {
  return ownId(nextNumber());
}

/** From 1 on, in this process. */
export function nextNumber(): number {
  serial += 1;
  return serial;
}

/** The id of our own for the request of this number. */
export function ownId(number: number): string {
  if (number < LOW.length) return `${RUN}-${number.toString(36)}`;
  const rest = Math.trunc(number / LOW.length);
  if (rest !== high) {
    high = rest;
    highText = `${RUN}-${rest.toString(36)}`;
  }
  return highText + LOW[number - rest * LOW.length];
}

export function isRequestId(text: string): boolean {
  return TAKEN.test(text);
}
