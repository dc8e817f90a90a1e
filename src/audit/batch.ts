import { checkSum, HASH_MARK, MOST_SUMS, type SealFields, sealHash, sealText } from './seal.ts';
import { linesOf } from './writes.ts';

/** A buffer that has grown beyond this is not kept. */
const MOST_KEPT_BYTES = 1024 * 1024;
const FIRST_BYTES = 64 * 1024;
/** So many lines are copied into the buffer together: a call for each would cost as much as making the line. */
const LINES_A_COPY = 32;

/** Text that is known to be ASCII is written several times as fast. */
export type LineEncoding = 'ascii' | 'utf8';

/**
 * Records on their way to the file, as the bytes that will be written. The buffer is kept from one write to the next:
 * joining strings and a new buffer for each write would cost more than the hash.
 */
export class Batch {
  #bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #length = 0;
  #records = 0;
  /** The last lines, which are not in the buffer yet. */
  #text = '';
  #textEncoding: LineEncoding = 'ascii';

  get records(): number {
    return this.#records;
  }

  /** In bytes; of the last few lines the number of characters. */
  get length(): number {
    return this.#length + this.#text.length;
  }

  add(line: string, encoding: LineEncoding = 'utf8'): void {
    this.#text += `${line}\n`;
    if (encoding === 'utf8') this.#textEncoding = 'utf8';
    this.#records += 1;
    if (this.#records % LINES_A_COPY === 0) this.#copyText();
  }

  /** All that is to be written: the records and their seal. Good until the next record is added. */
  seal(fields: SealFields, key: Buffer | undefined): { bytes: Buffer; hash: string } {
    this.#copyText();
    const sums = this.#records > MOST_SUMS ? undefined : this.#lines().map(checkSum).join('');
    const text = sealText(fields, this.#records, sums);
    this.#reserve(text.length + 128);
    const sealed = this.#length + this.#bytes.write(text, this.#length, 'latin1');
    const hash = sealHash(key).update(this.#bytes.subarray(0, sealed)).digest('hex');
    const end = sealed + this.#bytes.write(`${HASH_MARK}${hash}"}\n`, sealed, 'latin1');
    return { bytes: this.#bytes.subarray(0, end), hash };
  }

  /** The records, for when they cannot be written. */
  drain(): string[] {
    this.#copyText();
    const lines = this.#lines().map(String);
    this.clear();
    return lines;
  }

  clear(): void {
    if (this.#bytes.length > MOST_KEPT_BYTES) this.#bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
    this.#length = 0;
    this.#records = 0;
  }

  #copyText(): void {
    // No character of a string takes more than three bytes.
    this.#reserve(this.#text.length * 3);
    const encoding = this.#textEncoding === 'ascii' ? 'latin1' : 'utf8';
    this.#length += this.#bytes.write(this.#text, this.#length, encoding);
    this.#text = '';
    this.#textEncoding = 'ascii';
  }

  #lines(): Buffer[] {
    return linesOf(this.#bytes.subarray(0, this.#length));
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#bytes.length * 2, this.#length + bytes));
    this.#bytes.copy(larger, 0, 0, this.#length);
    this.#bytes = larger;
  }
}
