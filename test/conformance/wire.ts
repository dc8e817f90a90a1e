import { connect, type Socket } from 'node:net';

/** A whole HTTP answer. */
export interface Answer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** Interim answers that came before it, such as 100. */
  readonly interim: readonly number[];
}

/** What stands where an answer should: how it was lost, in words. */
export interface Loss {
  readonly status: undefined;
  readonly lost: string;
  /** False when the connection was over, or never came about, before the request was written: the client knows. */
  readonly sent: boolean;
}

export type Outcome = Answer | Loss;

/** How long an answer may take unless a scenario says otherwise: far more than any server needs for it. */
const ANSWER_MS = 5_000;
const CONNECT_MS = 5_000;

/** How a connection can end, in words. */
export const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  fin: 'closed',
};

/** A connection that writes what it is told, byte for byte, and tells what became of it. None of its waits is unbounded. */
export class Wire {
  readonly socket: Socket;
  #bytes = Buffer.alloc(4096);
  #length = 0;
  #end: string | undefined;
  #connected = false;
  #closed = false;
  /** Whether something was written when the connection was over. */
  #tooLate = false;
  readonly #waiting = new Set<() => void>();

  /** Begins to connect; what is written before it is connected goes out as soon as it is. */
  constructor(port: number) {
    // Ends its side when the server has ended its own, as clients do.
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true });
    this.socket.on('connect', () => {
      this.#connected = true;
      this.#wake();
    });
    this.socket.on('data', (chunk: Buffer) => {
      this.#append(chunk);
      this.#wake();
    });
    this.socket.on('end', () => this.#over('fin'));
    this.socket.on('error', (error: NodeJS.ErrnoException) => this.#over(error.code ?? error.message));
    this.socket.on('close', () => {
      this.#closed = true;
      this.#over('closed by ourselves');
    });
  }

  /** Resolves when the connection is made, or has failed. */
  async connected(): Promise<this> {
    await this.#until(() => this.#connected || this.#end !== undefined, CONNECT_MS);
    return this;
  }

  /** How the connection has ended, if it has: `fin`, or the code of an error such as ECONNRESET. */
  get end(): string | undefined {
    return this.#end;
  }

  /** How many bytes have come that no answer was made of yet. */
  get pending(): number {
    return this.#length;
  }

  write(bytes: string | Buffer): this {
    if (this.#end !== undefined) this.#tooLate = true;
    if (this.socket.writable) this.socket.write(bytes);
    return this;
  }

  /** Writes the head of a request with a Host, and no body. */
  request(method: string, path: string, headers: Readonly<Record<string, string>> = {}): this {
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    return this.write(`${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${lines.join('')}\r\n`);
  }

  get(path: string): this {
    return this.request('GET', path);
  }

  /** The next whole answer, or how it was lost. `head`: the request was HEAD, so there is no body. */
  async answer({ head = false, ms = ANSWER_MS }: { head?: boolean; ms?: number } = {}): Promise<Outcome> {
    const interim: number[] = [];
    let found: Parsed | undefined;
    await this.#until(() => {
      found = parse(this.#bytes.subarray(0, this.#length), head, this.#end === 'fin');
      while (found !== undefined && found.status < 200) {
        if (found.status === 101) break;
        interim.push(found.status);
        this.#drop(found.bytes);
        found = parse(this.#bytes.subarray(0, this.#length), head, this.#end === 'fin');
      }
      return found !== undefined || this.#end !== undefined;
    }, ms);
    if (found === undefined) return this.#loss(interim, ms);
    const { status, headers, body, bytes } = found;
    const answer = { status, headers, body: Buffer.from(body), interim };
    this.#drop(bytes);
    return answer;
  }

  /** Resolves when at least so many bytes have come, or nothing more will come in time. */
  async received(bytes: number): Promise<boolean> {
    return this.#until(() => this.#length >= bytes || this.#end !== undefined, ANSWER_MS);
  }

  /** How the connection ended, or undefined when it is still open after `ms`. */
  async ended(ms: number): Promise<string | undefined> {
    await this.#until(() => this.#end !== undefined, ms);
    return this.#end;
  }

  destroy(): void {
    this.socket.destroy();
  }

  #loss(interim: readonly number[], ms: number): Loss {
    const part = this.#bytes.subarray(0, Math.min(this.#length, 12)).toString('latin1');
    const status = /^HTTP\/1\.\d (\d{3})/.exec(part)?.[1];
    const inside =
      this.#length === 0 ? 'without an answer' : `in the middle of a ${status ?? 'malformed answer'}`;
    const after = interim.length > 0 ? `, after ${interim.join(', ')}` : '';
    const lost = (words: string, sent = true): Loss => ({ status: undefined, lost: words + after, sent });
    if (this.#end === undefined) {
      const seconds = ms / 1000;
      return lost(
        this.#length === 0 ? `no answer within ${seconds} s` : `still ${inside} after ${seconds} s`,
      );
    }
    const how = WORDS[this.#end] ?? this.#end;
    if (!this.#connected) return lost(how, false);
    return this.#tooLate ? lost(`${how} before it asked`, false) : lost(`${how} ${inside}`);
  }

  #append(chunk: Buffer): void {
    if (this.#length + chunk.length > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(2 * (this.#length + chunk.length));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    chunk.copy(this.#bytes, this.#length);
    this.#length += chunk.length;
  }

  #drop(bytes: number): void {
    this.#bytes.copy(this.#bytes, 0, bytes, this.#length);
    this.#length -= bytes;
  }

  /** Resolves when `reached` says so or the time is over. @returns whether it was reached */
  #until(reached: () => boolean, ms: number): Promise<boolean> {
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
      const timer = setTimeout(() => done(false), ms);
      this.#waiting.add(look);
    });
  }

  #over(how: string): void {
    // An error after the FIN is news: what was still to be sent is reset.
    if (this.#end === undefined || this.#end === 'fin') {
      if (how !== 'closed by ourselves' || this.#end === undefined) this.#end = how;
    }
    this.#wake();
  }

  #wake(): void {
    for (const look of [...this.#waiting]) look();
  }
}

interface Parsed {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** How many bytes the answer takes. */
  readonly bytes: number;
}

/** The first whole answer in `data`. `ended`: no byte will follow, which ends a body that has no length. */
function parse(data: Buffer, headOnly: boolean, ended: boolean): Parsed | undefined {
  const headEnd = data.indexOf('\r\n\r\n');
  if (headEnd === -1) return undefined;
  const [statusLine = '', ...lines] = data.subarray(0, headEnd).toString('latin1').split('\r\n');
  const status = Number(statusLine.split(' ')[1]);
  const headers = Object.fromEntries(
    lines.map((line) => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }),
  );
  const start = headEnd + 4;
  const upTo = (end: number, body = data.subarray(start, end)): Parsed | undefined =>
    data.length < end ? undefined : { status, headers, body, bytes: end };
  if (headOnly || status < 200 || status === 204 || status === 304) return upTo(start);
  if (headers['content-length'] !== undefined) return upTo(start + Number(headers['content-length']));
  if (headers['transfer-encoding']?.toLowerCase() === 'chunked') {
    const chunks: Buffer[] = [];
    for (let at = start; ; ) {
      const lineEnd = data.indexOf('\r\n', at);
      if (lineEnd === -1) return undefined;
      const size = Number.parseInt(data.subarray(at, lineEnd).toString('latin1'), 16);
      const next = lineEnd + 2 + size + 2;
      if (data.length < next) return undefined;
      if (size === 0) return upTo(next, Buffer.concat(chunks));
      chunks.push(data.subarray(lineEnd + 2, lineEnd + 2 + size));
      at = next;
    }
  }
  return ended ? upTo(data.length) : undefined;
}
