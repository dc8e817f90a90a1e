import { checkSum, HASH_MARK, MOST_SUMS, type SealFields, sealHash, sealText } from './seal.ts';
import { linesOf } from './writes.ts';

/** A buffer that has grown beyond this is not kept. */
const MOST_KEPT_BYTES = 1024 * 1024;
const FIRST_BYTES = 64 * 1024;
const NEWLINE = 0x0a;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const FIRST_PRINTABLE = 0x20;
const LAST_PRINTABLE = 0x7e;

/**
 * Records on their way to the file, as the bytes that will be written. A record is written in pieces, each of them
 * straight into the buffer, which is kept from one write to the next: to make a string of a line first, and to copy that,
 * costs three times as much.
 */
export class Batch {
  #bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #length = 0;
  #records = 0;

  get records(): number {
    return this.#records;
  }

  /** In bytes. */
  get length(): number {
    return this.#length;
  }

  /** Adds a record that is a line of JSON. */
  add(line: string): void {
    this.utf8(line);
    this.endLine();
  }

  /** Adds bytes to the record that is being written. */
  bytes(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** Adds text that is known to be ASCII. */
  ascii(text: string): void {
    this.#reserve(text.length);
    const bytes = this.#bytes;
    let at = this.#length;
    // For the few characters of a field a loop is quicker than a call into Node.
    for (let index = 0; index < text.length; index += 1) {
      bytes[at] = text.charCodeAt(index);
      at += 1;
    }
    this.#length = at;
  }

  utf8(text: string): void {
    // No character of a string takes more than three bytes.
    this.#reserve(text.length * 3);
    this.#length += this.#bytes.write(text, this.#length, 'utf8');
  }

  /** Adds text as a JSON string, with its quotes. */
  string(text: string): void {
    this.#reserve(text.length + 2);
    const bytes = this.#bytes;
    let at = this.#length;
    bytes[at] = QUOTE;
    at += 1;
    for (let index = 0; index < text.length; index += 1) {
      const code = text.charCodeAt(index);
      if (code < FIRST_PRINTABLE || code > LAST_PRINTABLE || code === QUOTE || code === BACKSLASH) {
        this.utf8(JSON.stringify(text));
        return;
      }
      bytes[at] = code;
      at += 1;
    }
    bytes[at] = QUOTE;
    this.#length = at + 1;
  }

  /** The record is whole. */
  endLine(): void {
    this.#reserve(1);
    this.#bytes[this.#length] = NEWLINE;
    this.#length += 1;
    this.#records += 1;
  }

  /** All that is to be written: the records and their seal. Good until the next record is added. */
  seal(fields: SealFields, key: Buffer | undefined): { bytes: Buffer; hash: string } {
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
    const lines = this.#lines().map(String);
    this.clear();
    return lines;
  }

  clear(): void {
    if (this.#bytes.length > MOST_KEPT_BYTES) this.#bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
    this.#length = 0;
    this.#records = 0;
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
