import { connect, type Socket } from 'node:net';
import { type Answer, AnswerReader } from './answer-reader.ts';
import { type Entry, Ledger, type Loss } from './ledger.ts';

export interface LoadOptions {
  /** On 127.0.0.1; the load of a bench goes nowhere else. */
  readonly port: number;
  /** Connections at a time, each with one request at a time. */
  readonly connections: number;
  /** Default `/`; a function is given the number of the request, from 0. */
  readonly path?: string | ((number: number) => string);
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
  /** How long one request may take before it is given up as lost. Default 5,000. */
  readonly timeoutMs?: number;
  /**
   * Open loop: so many requests fall due a second, whether or not the ones before are answered. Without it the loop
   * is closed: each connection sends its next request when the last one is answered.
   */
  readonly perSecond?: number;
  /** Whether a request is dropped whose connection is refused. Otherwise it is tried again, and waits meanwhile. */
  readonly dropRefused?: boolean;
  /** Sees every answer. */
  readonly onAnswer?: (answer: Answer, entry: Entry) => void;
}

/** What a connection asks of the load it is part of. */
interface Load {
  readonly bytes: (number: number) => Buffer;
  readonly dropRefused: boolean;
  /** Whether answers have no body, because the method is HEAD. */
  readonly bodiless: boolean;
  readonly ledger: Ledger;
  readonly timeoutMs: number;
  readonly onAnswer: (answer: Answer, entry: Entry) => void;
  /** When the next request is due that this connection may send; undefined when there is none for now. */
  readonly nextDueMs: () => number | undefined;
  /** Whether no new request may be sent. */
  readonly stopping: () => boolean;
}

/** Time before a connection that was refused is tried again. Without it a closed loop turns hot. */
const RETRY_MS = 20;
const SWEEP_MS = 50;
const PACE_MS = 1;

/**
 * A load of HTTP requests over raw sockets that accounts for each of them: answered, or lost and how. Connections are
 * kept alive and opened anew when the server has said `Connection: close`, at once, as well-behaved clients do.
 */
export class LedgerClient {
  readonly ledger = new Ledger();
  readonly #lines: Line[];
  readonly #backlog: number[] = [];
  readonly #sweeper: NodeJS.Timeout;
  #pacer: NodeJS.Timeout | undefined;
  #stopping = false;

  private constructor(options: LoadOptions) {
    const { perSecond } = options;
    const load: Load = {
      bytes: bytesOf(options),
      dropRefused: options.dropRefused ?? false,
      bodiless: options.method === 'HEAD',
      ledger: this.ledger,
      timeoutMs: options.timeoutMs ?? 5_000,
      onAnswer: options.onAnswer ?? (() => undefined),
      nextDueMs: () => (perSecond === undefined ? performance.now() : this.#backlog.shift()),
      stopping: () => this.#stopping,
    };
    this.#lines = Array.from({ length: options.connections }, () => new Line(options.port, load));
    this.#sweeper = setInterval(() => {
      const now = performance.now();
      for (const line of this.#lines) line.giveUpBefore(now - load.timeoutMs);
    }, SWEEP_MS);
    if (perSecond === undefined) for (const line of this.#lines) line.proceed();
    else this.#pace(perSecond);
  }

  static start(options: LoadOptions): LedgerClient {
    return new LedgerClient(options);
  }

  /**
   * Sends one request on a connection of its own.
   * @throws Error when the connection is refused
   */
  static async once(options: Omit<LoadOptions, 'connections' | 'perSecond'>): Promise<Entry> {
    const client = new LedgerClient({ ...options, connections: 1 });
    await Promise.all(client.#lines.map((line) => line.tried()));
    const { entries, refused } = await client.stop();
    const [entry] = entries;
    if (entry === undefined) throw new Error(`no connection: ${[...refused.keys()]}`);
    return entry;
  }

  /** Sends nothing more, waits for every answer that is due, and closes. @returns the ledger, reconciled */
  async stop(): Promise<Ledger> {
    this.#stopping = true;
    clearInterval(this.#pacer);
    await Promise.all(this.#lines.map((line) => line.finish()));
    clearInterval(this.#sweeper);
    this.ledger.unsent += this.#backlog.length;
    return this.ledger.reconcile();
  }

  #pace(perSecond: number): void {
    const startedMs = performance.now();
    let fallen = 0;
    this.#pacer = setInterval(() => {
      const due = ((performance.now() - startedMs) / 1000) * perSecond;
      for (; fallen < due; fallen += 1) this.#backlog.push(startedMs + (fallen / perSecond) * 1000);
      for (const line of this.#lines) {
        if (this.#backlog.length === 0) break;
        line.proceed();
      }
    }, PACE_MS);
  }
}

/** One client: a connection at a time, a request at a time. */
class Line {
  readonly #port: number;
  readonly #load: Load;
  #socket: Socket | undefined;
  #reader = new AnswerReader(false);
  /** Sent, and not answered. */
  #entry: Entry | undefined;
  /** Due, and waiting for a connection. */
  #dueMs: number | undefined;
  #connectingSinceMs: number | undefined;
  #retry: NodeJS.Timeout | undefined;
  #changed: () => void = () => undefined;

  constructor(port: number, load: Load) {
    this.#port = port;
    this.#load = load;
  }

  /** Takes the next step, if there is one to take. */
  proceed(): void {
    if (this.#entry !== undefined || this.#connectingSinceMs !== undefined || this.#retry !== undefined)
      return;
    if (this.#load.stopping()) return;
    this.#dueMs ??= this.#load.nextDueMs();
    if (this.#dueMs === undefined) return;
    if (this.#socket?.writable) this.#send(this.#socket, this.#dueMs);
    else this.#connect();
  }

  giveUpBefore(ms: number): void {
    if (this.#entry !== undefined && this.#entry.sentMs < ms) this.#over('timeout');
    else if (this.#connectingSinceMs !== undefined && this.#connectingSinceMs < ms) this.#over('timeout');
  }

  /** Resolves when the first request is sent, or the first connection refused. */
  async tried(): Promise<void> {
    const { ledger } = this.#load;
    while (ledger.sent === 0 && ledger.refused.size === 0) await this.#change();
  }

  /** Resolves when nothing is outstanding. */
  async finish(): Promise<void> {
    clearTimeout(this.#retry);
    while (this.#entry !== undefined) await this.#change();
    if (this.#dueMs !== undefined) this.#load.ledger.unsent += 1;
    this.#socket?.destroy();
  }

  #connect(): void {
    const socket = connect({ port: this.#port, host: '127.0.0.1', noDelay: true });
    this.#socket = socket;
    this.#reader = new AnswerReader(this.#load.bodiless);
    this.#connectingSinceMs = performance.now();
    const current = (): boolean => this.#socket === socket;
    socket.once('connect', () => {
      if (!current()) return;
      this.#load.ledger.connections += 1;
      this.#connectingSinceMs = undefined;
      if (this.#dueMs !== undefined && !this.#load.stopping()) this.#send(socket, this.#dueMs);
    });
    socket.on('data', (chunk) => {
      if (current()) this.#heard(this.#reader.feed(chunk));
    });
    socket.once('end', () => {
      if (current()) this.#over('fin');
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (current()) this.#over(error.code ?? error.message);
    });
  }

  #send(socket: Socket, dueMs: number): void {
    this.#dueMs = undefined;
    const { ledger, bytes } = this.#load;
    const number = ledger.sent;
    this.#entry = {
      number,
      dueMs,
      sentMs: performance.now(),
      endedMs: undefined,
      status: undefined,
      lost: undefined,
    };
    ledger.entries.push(this.#entry);
    socket.write(bytes(number));
    this.#changed();
  }

  #heard(answer: Answer | undefined): void {
    const entry = this.#entry;
    if (answer === undefined || entry === undefined) return;
    entry.endedMs = performance.now();
    entry.status = answer.status;
    this.#entry = undefined;
    this.#load.onAnswer(answer, entry);
    // Nothing may be sent behind an answer that ends the connection.
    if (answer.last) {
      this.#socket?.end();
      this.#socket = undefined;
    }
    this.#changed();
    this.proceed();
  }

  /** The connection has ended, in whatever way. */
  #over(how: Loss): void {
    const socket = this.#socket;
    if (how === 'fin') this.#heard(this.#reader.end());
    if (socket !== this.#socket) return;
    this.#socket = undefined;
    socket?.destroy();
    const entry = this.#entry;
    if (entry !== undefined) {
      entry.endedMs = performance.now();
      entry.lost = how;
      this.#entry = undefined;
    }
    if (this.#connectingSinceMs !== undefined) {
      this.#connectingSinceMs = undefined;
      this.#load.ledger.refusals.push({ dueMs: this.#dueMs ?? performance.now(), how });
      if (this.#load.dropRefused) this.#dueMs = undefined;
    }
    this.#changed();
    if (this.#load.stopping()) return;
    // A load that drops what is refused is no hot loop: it goes on with what falls due.
    if (this.#load.dropRefused) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.proceed();
    }, RETRY_MS);
  }

  /** Resolves at the next event. */
  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#changed = resolve;
    });
  }
}

function bytesOf({
  path = '/',
  method = 'GET',
  headers = {},
  body,
}: LoadOptions): (number: number) => Buffer {
  const payload = Buffer.from(body ?? '');
  const fields = { Host: '127.0.0.1', ...headers, ...(body && { 'Content-Length': payload.length }) };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  const request = (target: string): Buffer =>
    Buffer.concat([Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines.join('')}\r\n`), payload]);
  if (typeof path === 'function') return (number) => request(path(number));
  const bytes = request(path);
  return () => bytes;
}
