import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export interface RawResponse {
  readonly status: number;
  readonly version: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** A whole answer. */
export interface Answer extends RawResponse {
  /** Interim answers that came before it, such as 100. */
  readonly interim: readonly number[];
}

/** How a connection ended: by the peer's FIN, by an error such as ECONNRESET, or by ourselves. */
export type End = 'fin' | 'closed' | (string & {});

/** What stands where an answer should. */
export interface Loss {
  readonly status: undefined;
  readonly how: End | 'timeout';
  /** The same in words, with what had come. */
  readonly lost: string;
  /** False when the connection was over, or never came about, before the request was written: the client knows. */
  readonly sent: boolean;
}

export type Outcome = Answer | Loss;

/** How a connection can end, in words. */
export const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  fin: 'closed',
};

/** How long an answer may take unless a caller says otherwise: far more than any server needs for it. */
const ANSWER_MS = 5_000;
/** How long bytes may take that are on their way, also on a slow machine. */
const BYTES_MS = 15_000;
const CONNECT_MS = 5_000;

/** An HTTP/1.1 client that writes what it is told, byte for byte, reads answers as they come, and tells what became of them. */
export class RawClient {
  readonly socket: Socket;
  /** Resolves when the connection is over, with how it ended. */
  readonly ended: Promise<End>;
  #buffer: Buffer = Buffer.alloc(0);
  #length = 0;
  #error: Error | undefined;
  #end: End | undefined;
  #connected = false;
  #closed = false;
  /** Whether something was written when the connection was over. */
  #tooLate = false;
  readonly #waiting = new Set<() => void>();

  /**
   * Begins to connect; what is written before it is connected goes out as soon as it is.
   * @param halfOpen whether it keeps its side open when the server has ended its own; clients do not
   */
  constructor(port: number, { halfOpen = true } = {}) {
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: halfOpen });
    this.socket.on('connect', () => {
      this.#connected = true;
      this.#wake();
    });
    this.socket.on('data', (chunk: Buffer) => {
      this.#append(chunk);
      this.#wake();
    });
    this.ended = new Promise((resolve) => {
      const over = (how: End): void => {
        // An error after the FIN is news: what was still to be sent is reset.
        if (this.#end === undefined || (this.#end === 'fin' && how !== 'closed')) this.#end = how;
        resolve(how);
        this.#wake();
      };
      this.socket.on('end', () => over('fin'));
      this.socket.on('error', (error: NodeJS.ErrnoException) => {
        this.#error = error;
        over(error.code ?? error.message);
      });
      this.socket.on('close', () => {
        this.#closed = true;
        over('closed');
      });
    });
  }

  /** @throws when the connection is refused */
  static async open(port: number): Promise<RawClient> {
    const client = new RawClient(port);
    await once(client.socket, 'connect');
    return client;
  }

  /** Resolves when the connection is made, or has failed, as `end` then tells. */
  async connected(ms = CONNECT_MS): Promise<this> {
    await this.#until(() => this.#connected || this.#end !== undefined, ms);
    return this;
  }

  /** Whether there was a connection. */
  get isConnected(): boolean {
    return this.#connected;
  }

  /** How the connection has ended, if it has. */
  get end(): End | undefined {
    return this.#end;
  }

  write(bytes: string | Buffer): this {
    if (this.#end !== undefined) this.#tooLate = true;
    if (this.socket.writable) this.socket.write(bytes);
    return this;
  }

  /** Writes the head of a request with a Host, and no body. */
  request(method: string, path: string, headers: Readonly<Record<string, string>> = {}): this {
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    return this.write(`${method} ${path} HTTP/1.1\r\nHost: localhost\r\n${lines.join('')}\r\n`);
  }

  get(path: string): this {
    return this.request('GET', path);
  }

  /** Writes a request that asks to leave HTTP for the protocol that the test application speaks. */
  upgrade(path: string): this {
    return this.request('GET', path, { Connection: 'Upgrade', Upgrade: 'test' });
  }

  /** Bytes that have come and were not taken as an answer. */
  get pending(): string {
    return this.#received.toString('latin1');
  }

  /**
   * The next whole answer, also an interim one.
   * @throws when the connection ends before it is whole, with what had come of it
   */
  async response({ head = false }: { head?: boolean } = {}): Promise<RawResponse> {
    const response = await this.#next(head);
    if (response !== undefined) return response;
    throw new Error(`no whole answer before ${this.#end}, but ${JSON.stringify(this.pending)}`, {
      cause: this.#error,
    });
  }

  /** The next whole answer that is not interim, or how it was lost. `head`: the request was HEAD, so there is no body. */
  async answer({ head = false, ms = ANSWER_MS }: { head?: boolean; ms?: number } = {}): Promise<Outcome> {
    const interim: number[] = [];
    const untilMs = performance.now() + ms;
    for (;;) {
      const response = await this.#next(head, untilMs - performance.now());
      if (response === undefined) return this.#loss(interim, ms);
      if (response.status >= 200 || response.status === 101) return { ...response, interim };
      interim.push(response.status);
    }
  }

  /** Resolves when at least this many bytes wait to be taken, or no more will come. @returns whether they do */
  async received(bytes: number, ms = BYTES_MS): Promise<boolean> {
    return this.#until(() => this.#length >= bytes || this.#end !== undefined, ms);
  }

  /** How the connection ended, or undefined when it is still open after `ms`. */
  async endedWithin(ms: number): Promise<End | undefined> {
    await this.#until(() => this.#end !== undefined, ms);
    return this.#end;
  }

  /** Whatever the connection still brings until it is over. */
  async rest(): Promise<string> {
    await this.ended;
    return this.pending;
  }

  destroy(): void {
    this.socket.destroy();
  }

  get #received(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  async #next(head: boolean, ms?: number): Promise<RawResponse | undefined> {
    let found: Parsed | undefined;
    await this.#until(() => {
      found = parse(this.#received, head, this.#end === 'fin');
      return found !== undefined || this.#end !== undefined;
    }, ms);
    this.#buffer = this.#buffer.subarray(found?.bytes);
    this.#length -= found?.bytes ?? 0;
    return found?.response;
  }

  #loss(interim: readonly number[], ms: number): Loss {
    const part = this.#received.subarray(0, 12).toString('latin1');
    const status = /^HTTP\/1\.\d (\d{3})/.exec(part)?.[1];
    const inside = part === '' ? 'without an answer' : `in the middle of a ${status ?? 'malformed answer'}`;
    const after = interim.length > 0 ? `, after ${interim.join(', ')}` : '';
    const how = this.#end ?? 'timeout';
    const loss = (words: string, sent = true): Loss => ({
      status: undefined,
      how,
      lost: words + after,
      sent,
    });
    if (this.#end === undefined) {
      const limit = `${ms / 1000} s`;
      return loss(part === '' ? `no answer within ${limit}` : `still ${inside} after ${limit}`);
    }
    const words = WORDS[how] ?? how;
    if (!this.#connected) return loss(words, false);
    return this.#tooLate ? loss(`${words} before it asked`, false) : loss(`${words} ${inside}`);
  }

  #append(chunk: Buffer): void {
    if (this.#length === 0) this.#buffer = chunk;
    else if (this.#length + chunk.length <= this.#buffer.length) chunk.copy(this.#buffer, this.#length);
    else {
      // With room for as much again: an answer of megabytes comes in thousands of chunks.
      const larger = Buffer.allocUnsafe(2 * (this.#length + chunk.length));
      this.#buffer.copy(larger, 0, 0, this.#length);
      chunk.copy(larger, this.#length);
      this.#buffer = larger;
    }
    this.#length += chunk.length;
  }

  /** Resolves when `reached` says so, the connection is over or the time is. @returns whether it was reached */
  #until(reached: () => boolean, ms?: number): Promise<boolean> {
    if (reached()) return Promise.resolve(true);
    // Nothing more can come.
    if (this.#closed) return Promise.resolve(false);
    return new Promise((resolve) => {
      const done = (value: boolean): void => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve(value);
      };
      const look = (): void => {
        if (reached()) done(true);
      };
      const timer = ms === undefined ? undefined : setTimeout(() => done(false), ms);
      this.#waiting.add(look);
    });
  }

  #wake(): void {
    for (const look of [...this.#waiting]) look();
  }
}

interface Parsed {
  readonly response: RawResponse;
  /** How many bytes the answer takes. */
  readonly bytes: number;
}

/** The first whole answer in `data`. `ended`: no byte will follow, which ends a body that has no length. */
function parse(data: Buffer, headOnly: boolean, ended: boolean): Parsed | undefined {
  const headEnd = data.indexOf('\r\n\r\n');
  if (headEnd === -1) return undefined;
  const [statusLine = '', ...lines] = data.toString('latin1', 0, headEnd).split('\r\n');
  const [version = '', code = ''] = statusLine.split(' ');
  const status = Number(code);
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(':');
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  const start = headEnd + 4;
  const upTo = (bytes: number, body = data.toString('utf8', start, bytes)): Parsed | undefined =>
    data.length < bytes ? undefined : { response: { status, version, headers, body }, bytes };
  if (headOnly || status < 200 || status === 204 || status === 304) return upTo(start);
  const length = headers['content-length'];
  if (length !== undefined) {
    const end = start + Number(length);
    return data.length < end ? undefined : upTo(end);
  }
  if (headers['transfer-encoding']?.toLowerCase() === 'chunked') {
    const chunks: Buffer[] = [];
    for (let at = start; ; ) {
      const lineEnd = data.indexOf('\r\n', at);
      if (lineEnd === -1) return undefined;
      const size = Number.parseInt(data.toString('latin1', at, lineEnd), 16);
      const next = lineEnd + 2 + size + 2;
      if (data.length < next) return undefined;
      if (size === 0) return upTo(next, Buffer.concat(chunks).toString('utf8'));
      chunks.push(data.subarray(lineEnd + 2, lineEnd + 2 + size));
      at = next;
    }
  }
  return ended ? upTo(data.length) : undefined;
}
