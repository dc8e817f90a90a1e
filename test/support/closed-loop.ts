import { Agent, type IncomingMessage, request } from 'node:http';
import { hasCode } from '../../src/error.ts';

/** How long an answer may take before it counts as lost. */
const PATIENCE_MS = 20_000;

/** What became of the requests of all clients. */
export interface Ledger {
  readonly served: { GET: number; POST: number };
  /** Sent again because they were refused with `fail_safe: true`, or had crossed with the end of a kept connection. */
  resent: number;
  /** What a client must not see: any other status, a reset, a refused connection, a wrong body. */
  readonly errors: string[];
}

/**
 * Clients that ask an address again and again, each with GET and POST in turn and one request at a time: half of them
 * on connections that are kept, half on a new one for each request.
 */
export class ClosedLoop {
  readonly ledger: Ledger = { served: { GET: 0, POST: 0 }, resent: 0, errors: [] };
  readonly #over: Promise<unknown>;
  readonly #resend: boolean;
  #going = true;
  readonly #waiting = new Set<() => void>();

  /**
   * @param options.resend whether the clients know what a 503 with `fail_safe: true` means, and send again
   * @param options.connections `kept` or `fresh`: the same for all
   */
  constructor(
    port: number,
    clients: number,
    options: { resend?: boolean; connections?: 'kept' | 'fresh' } = {},
  ) {
    this.#resend = options.resend ?? false;
    const kept = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
    const fresh = new Agent({ keepAlive: false, maxSockets: Number.POSITIVE_INFINITY });
    const agents = { kept: [kept], fresh: [fresh], both: [kept, fresh] }[options.connections ?? 'both'];
    const loops = Array.from({ length: clients }, (_, index) =>
      this.#loop(port, agents[index % agents.length] as Agent),
    );
    this.#over = Promise.all(loops).then(() => kept.destroy());
  }

  /** Resolves when so many more requests of each kind have been served. */
  async served(more: number): Promise<void> {
    const { served } = this.ledger;
    const goal = { GET: served.GET + more, POST: served.POST + more };
    while (this.#going && (served.GET < goal.GET || served.POST < goal.POST)) {
      await new Promise<void>((wake) => this.#waiting.add(wake));
    }
  }

  /** Lets each client have its answer, and tells what became of all. */
  async stop(): Promise<Ledger> {
    this.#going = false;
    await this.#over;
    return this.ledger;
  }

  async #loop(port: number, agent: Agent): Promise<void> {
    for (let turn = 0; this.#going; turn += 1) {
      const method = turn % 2 === 0 ? 'GET' : 'POST';
      try {
        const path = method === 'GET' ? '/' : '/json';
        const { status, body } = await this.#ask(port, agent, method, path);
        if (status === 200) this.ledger.served[method] += 1;
        else this.ledger.errors.push(`${method} ${status} ${body}`);
      } catch (error) {
        this.ledger.errors.push(`${method} ${String(error)}`);
      }
      for (const wake of this.#waiting) wake();
      this.#waiting.clear();
    }
  }

  async #ask(port: number, agent: Agent, method: string, path: string): Promise<Answer> {
    for (;;) {
      try {
        const answer = await ask(port, agent, method, path);
        if (!this.#resend || answer.status !== 503 || JSON.parse(answer.body).fail_safe !== true)
          return answer;
      } catch (error) {
        // Whether that was right for a POST, the audit log tells: the test counts what was done.
        if (!this.#resend || !(error instanceof Crossed)) throw error;
      }
      this.ledger.resent += 1;
    }
  }
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

/** A connection that was kept has ended before a byte of the answer: the request crossed with its close. */
class Crossed extends Error {}

/** One request through an agent, with its whole answer. @throws when there is none */
export function ask(port: number, agent: Agent | false, method: string, path: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = method === 'POST' ? { 'Content-Type': 'application/json' } : {};
    const asked = request({ host: '127.0.0.1', port, path, method, agent, headers });
    asked.setTimeout(PATIENCE_MS, () => asked.destroy(new Error('no answer in time')));
    asked.on('error', (error) => {
      reject(
        asked.reusedSocket && hasCode(error, 'ECONNRESET', 'EPIPE') ? new Crossed(error.message) : error,
      );
    });
    asked.on('response', (response: IncomingMessage) => {
      let body = '';
      response.on('data', (chunk) => {
        body += chunk;
      });
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    asked.end(method === 'POST' ? '{"order":17}' : undefined);
  });
}
