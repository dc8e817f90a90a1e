import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';

/** A longer line is passed on in pieces: a program that ends none must not fill the memory. */
const LONGEST_LINE = 64 * 1024;

/** Passes on what a program writes, as whole lines. @param write takes a line with its end; it must not block */
export function passOnLines(stream: Readable, write: (line: string) => void): void {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  stream.on('data', (chunk: Buffer) => {
    const lines = (rest + decoder.write(chunk)).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) write(`${line}\n`);
    if (rest.length <= LONGEST_LINE) return;
    write(`${rest}\n`);
    rest = '';
  });
  stream.on('close', () => {
    if (rest !== '') write(`${rest}\n`);
  });
  // A pipe whose writer is gone has told all.
  stream.on('error', () => undefined);
}
