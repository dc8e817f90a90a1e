import { RawClient } from './raw-client.ts';

/** An answer that has reached a client whole. */
export interface Answered {
  readonly path: string;
  readonly status: number;
  /** Wall-clock milliseconds. */
  readonly atMs: number;
}

let serial = 0;

/** A closed loop of clients: each asks for a path of its own, waits for the answer, and asks again. */
export class Load {
  readonly answered: Answered[] = [];
  /** Resolves when every client has ended: told to, or because its connection did. */
  readonly over: Promise<void>;
  #stopped = false;
  readonly #waiting = new Set<() => void>();

  constructor(port: number, connections: number) {
    this.over = Promise.all(Array.from({ length: connections }, () => this.#loop(port))).then(() =>
      this.#wake(),
    );
  }

  /** Resolves when so many answers have come. @throws when the load is over before */
  async reached(count: number): Promise<void> {
    let over = false;
    void this.over.then(() => {
      over = true;
    });
    while (this.answered.length < count) {
      if (over) throw new Error(`the load was over after ${this.answered.length} answers, before ${count}`);
      await new Promise<void>((wake) => this.#waiting.add(wake));
    }
  }

  /** Lets each client have its answer, and no other. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.over;
  }

  /** The paths that were answered with 200. */
  get paths(): string[] {
    return this.answered.filter(({ status }) => status === 200).map(({ path }) => path);
  }

  async #loop(port: number): Promise<void> {
    let client: RawClient | undefined;
    try {
      client = await RawClient.open(port);
      while (!this.#stopped) {
        serial += 1;
        const path = `/n/${serial}`;
        const { status, headers } = await client.get(path).response();
        this.answered.push({ path, status, atMs: Date.now() });
        this.#wake();
        if (headers.connection === 'close') break;
      }
    } catch {
      // The service is gone: that is what the tests of it are about.
    } finally {
      client?.destroy();
    }
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }
}
