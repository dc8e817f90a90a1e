import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export interface RawResponse {
  readonly status: number;
  readonly version: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** How a connection ended: by the peer's FIN, by an error such as ECONNRESET, or by ourselves. */
export type End = 'fin' | 'closed' | (string & {});

/** An HTTP/1.1 client that writes what it is told, byte for byte, and reads answers as they come. */
export class RawClient {
  readonly socket: Socket;
  /** Resolves when the connection is over, with how it ended. */
  readonly ended: Promise<End>;
  #chunks: Buffer[] = [];
  #length = 0;
  #end: End | undefined;
  readonly #waiting = new Set<() => void>();

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#length += chunk.length;
      this.#wake();
    });
    this.ended = new Promise((resolve) => {
      const end = (how: End): void => {
        this.#end ??= how;
        resolve(this.#end);
        this.#wake();
      };
      socket.on('end', () => end('fin'));
      socket.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
      socket.on('close', () => end('closed'));
    });
  }

  static async open(port: number): Promise<RawClient> {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    await once(socket, 'connect');
    return new RawClient(socket);
  }

  write(text: string | Buffer): this {
    this.socket.write(text);
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

  /** Bytes that have come and were not taken by `response()`. */
  get pending(): string {
    return this.#received().toString('latin1');
  }

  /**
   * The next whole answer.
   * @throws when the connection ends before it is whole, with what had come of it
   */
  async response(options: { head?: boolean } = {}): Promise<RawResponse> {
    for (;;) {
      const received = this.#received();
      const parsed = parse(received, this.#end !== undefined, options.head ?? false);
      if (parsed !== undefined) {
        this.#chunks = [received.subarray(parsed.bytes)];
        this.#length -= parsed.bytes;
        return parsed.response;
      }
      if (this.#end !== undefined)
        throw new Error(`no whole answer before ${this.#end}, but ${JSON.stringify(this.pending)}`);
      await new Promise<void>((wake) => this.#waiting.add(wake));
    }
  }

  /** Resolves when at least this many bytes wait to be taken. */
  async received(bytes: number): Promise<void> {
    while (this.#length < bytes && this.#end === undefined) {
      await new Promise<void>((wake) => this.#waiting.add(wake));
    }
  }

  /** Whatever the connection still brings until it is over. */
  async rest(): Promise<string> {
    await this.ended;
    return this.pending;
  }

  destroy(): void {
    this.socket.destroy();
  }

  #received(): Buffer {
    const [first, ...rest] = this.#chunks;
    const all = first !== undefined && rest.length === 0 ? first : Buffer.concat(this.#chunks);
    this.#chunks = [all];
    return all;
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }
}

function parse(
  data: Buffer,
  ended: boolean,
  headOnly: boolean,
): { response: RawResponse; bytes: number } | undefined {
  const headEnd = data.indexOf('\r\n\r\n');
  if (headEnd === -1) return undefined;
  const [statusLine = '', ...lines] = data.subarray(0, headEnd).toString('latin1').split('\r\n');
  const [version = '', status = ''] = statusLine.split(' ');
  const headers = Object.fromEntries(
    lines.map((line) => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }),
  );
  const start = headEnd + 4;
  const done = (body: Buffer, bytes: number) => ({
    response: { status: Number(status), version, headers, body: body.toString('utf8') },
    bytes,
  });
  if (headOnly || status.startsWith('1') || status === '204' || status === '304')
    return done(Buffer.alloc(0), start);
  if (headers['content-length'] !== undefined) {
    const length = Number(headers['content-length']);
    return data.length < start + length
      ? undefined
      : done(data.subarray(start, start + length), start + length);
  }
  if (headers['transfer-encoding'] === 'chunked') {
    const chunks: Buffer[] = [];
    for (let at = start; ; ) {
      const lineEnd = data.indexOf('\r\n', at);
      if (lineEnd === -1) return undefined;
      const size = Number.parseInt(data.subarray(at, lineEnd).toString('latin1'), 16);
      const next = lineEnd + 2 + size + 2;
      if (data.length < next) return undefined;
      if (size === 0) return done(Buffer.concat(chunks), next);
      chunks.push(data.subarray(lineEnd + 2, lineEnd + 2 + size));
      at = next;
    }
  }
  return ended ? done(data.subarray(start), data.length) : undefined;
}
