/** A whole HTTP answer. */
export interface Answer {
  readonly status: number;
  /** The head as it came, in lower case: `\r\nname: value` for each field. */
  readonly head: string;
  readonly body: Buffer;
  /** Whether the connection ends with it. */
  readonly last: boolean;
}

const END_OF_HEAD = '\r\n\r\n';

/** Reads one answer at a time out of the bytes of a connection. Knows lengths, chunks, and bodies that a FIN ends. */
export class AnswerReader {
  readonly #bodiless: boolean;
  #bytes: Buffer = Buffer.alloc(0);

  /** @param bodiless whether the requests are HEAD, whose answers end with their head */
  constructor(bodiless: boolean) {
    this.#bodiless = bodiless;
  }

  /** Takes bytes in. @returns the answer that they complete, if they do */
  feed(chunk: Buffer): Answer | undefined {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    return this.#take(false);
  }

  /** The connection is over. @returns the answer whose end that was */
  end(): Answer | undefined {
    return this.#take(true);
  }

  #take(ended: boolean): Answer | undefined {
    const headEnd = this.#bytes.indexOf(END_OF_HEAD);
    if (headEnd === -1) return undefined;
    const head = this.#bytes.toString('latin1', 0, headEnd).toLowerCase();
    const start = headEnd + END_OF_HEAD.length;
    const status = Number(head.slice(9, 12));
    if (status >= 100 && status < 200) {
      this.#bytes = this.#bytes.subarray(start);
      return this.#take(ended);
    }
    const length = /\r\ncontent-length: *(\d+)/.exec(head)?.[1];
    const found =
      this.#bodiless || status === 204 || status === 304
        ? { body: Buffer.alloc(0), end: start }
        : length !== undefined
          ? this.#sized(start, Number(length))
          : head.includes('\r\ntransfer-encoding: chunked')
            ? this.#chunked(start)
            : ended
              ? { body: this.#bytes.subarray(start), end: this.#bytes.length }
              : undefined;
    if (found === undefined) return undefined;
    this.#bytes = this.#bytes.subarray(found.end);
    const last = /\r\nconnection: *close/.test(head) || ended;
    return { status, head, body: found.body, last };
  }

  #sized(start: number, length: number): { body: Buffer; end: number } | undefined {
    const end = start + length;
    return this.#bytes.length < end ? undefined : { body: this.#bytes.subarray(start, end), end };
  }

  #chunked(start: number): { body: Buffer; end: number } | undefined {
    const chunks: Buffer[] = [];
    for (let at = start; ; ) {
      const lineEnd = this.#bytes.indexOf('\r\n', at);
      if (lineEnd === -1) return undefined;
      const size = Number.parseInt(this.#bytes.toString('latin1', at, lineEnd), 16);
      const next = lineEnd + 2 + size + 2;
      if (this.#bytes.length < next) return undefined;
      if (size === 0) return { body: Buffer.concat(chunks), end: next };
      chunks.push(this.#bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
      at = next;
    }
  }
}
