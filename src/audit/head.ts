import { readFileSync } from 'node:fs';

/** A seal of a chain. The last one of a log, kept somewhere else, shows whether the end was cut off. */
export interface Head {
  readonly chain: string;
  readonly seq: number;
  readonly hash: string;
}

/** Where the head is kept beside the log: when a run begins and ends, and when one of its files ends. */
export function headFile(file: string): string {
  return `${file}.head`;
}

export function headText(head: Head): string {
  return `${JSON.stringify(head)}\n`;
}

/** The hash of the head that was kept beside the log; undefined when none can be read. */
export function readHead(file: string): string | undefined {
  try {
    const { hash } = JSON.parse(readFileSync(headFile(file), 'utf8'));
    return typeof hash === 'string' ? hash : undefined;
  } catch {
    return undefined;
  }
}
