/**
 * The throughput bench without the kernel: the same JSON route behind the same servers, each in a process of its own,
 * on a connection that is a stream in memory. node:http parses, the server does what it does, node:http writes.
 *
 * Sockets, the scheduler and the load generator drop out, and with them most of the noise: batches are so short that
 * some run undisturbed on a busy machine, and the best one repeats to within a few per cent. What drops out is the
 * same for every server, so ratios are further from 1 here than on a wire; it is the difference that says what a
 * server costs.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import type { Server } from 'node:http';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { pino } from 'pino';
import type { App } from '../src/index.ts';
import { machine, spread, table } from '../test/support/figures.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '4' },
    batches: { type: 'string', default: '300' },
    server: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const batches = Number(values.batches);
/** Requests in a batch: about as long as a busy machine leaves a process alone. */
const BATCH = 100;
const WARM_UP_BATCHES = 200;

const REQUEST = Buffer.from(
  'GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nConnection: keep-alive\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n',
);

/** A connection in memory: what is pushed into it, the server reads; each write of the server's is an answer. */
class MemorySocket extends Duplex {
  readonly remoteAddress = '127.0.0.1';
  bytesRead = 0;
  #answered: () => void = () => undefined;

  /** Sends `count` requests, each when the one before is answered. */
  exchange(count: number): Promise<void> {
    return new Promise((resolve) => {
      let left = count;
      this.#answered = () => {
        left -= 1;
        // The next request comes in a turn of its own, as from a wire.
        if (left === 0) setImmediate(resolve);
        else setImmediate(() => this.#send());
      };
      this.#send();
    });
  }

  #send(): void {
    this.bytesRead += REQUEST.length;
    this.push(REQUEST);
  }

  override _read(): void {}

  override _write(_chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    done();
    this.#answered();
  }

  override _writev(_chunks: unknown, done: () => void): void {
    done();
    this.#answered();
  }

  // What node:http asks of a socket besides being a stream.
  setTimeout(): this {
    return this;
  }
  setNoDelay(): this {
    return this;
  }
  setKeepAlive(): this {
    return this;
  }
  destroySoon(): void {
    this.destroy();
  }
}

/** How each server is made, in the process that measures it. */
const makers: Readonly<Record<string, () => Promise<Server>>> = {
  'bare node:http': () => peer('bare-node.mjs'),
  'master-agent': ours,
  Fastify: () => peer('fastify.mjs'),
  polka: () => peer('polka.mjs'),
  Express: () => peer('express.mjs'),
};
const load = loadavg()[0] ?? 0;
const make = makers[values.server ?? ''];
if (make === undefined) report(inTurns());
else console.log(await bestNanos(await make()));
process.exit();

/** The best batch of each process, by server. */
function inTurns(): Map<string, number[]> {
  const names = Object.keys(makers);
  const best = new Map<string, number[]>(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const name of names) {
      const args = [...process.execArgv, fileURLToPath(import.meta.url), '--server', name];
      const output = execFileSync(process.execPath, [...args, '--batches', String(batches)], {
        encoding: 'utf8',
        env: { ...process.env, NODE_ENV: 'production' },
      });
      best.get(name)?.push(Number(output));
    }
  }
  return best;
}

async function bestNanos(server: Server): Promise<number> {
  const socket = new MemorySocket();
  server.emit('connection', socket);
  let best = Number.POSITIVE_INFINITY;
  for (let batch = -WARM_UP_BATCHES; batch < batches; batch += 1) {
    const startedMs = performance.now();
    await socket.exchange(BATCH);
    if (batch >= 0) best = Math.min(best, ((performance.now() - startedMs) * 1e6) / BATCH);
  }
  return best;
}

async function peer(file: string): Promise<Server> {
  const { default: makeServer }: { default: () => Server | Promise<Server> } = await import(
    new URL(`servers/${file}`, import.meta.url).href
  );
  return makeServer();
}

/** With its doors open and its log on, as in the throughput bench. */
async function ours(): Promise<Server> {
  const { createService }: typeof import('../src/index.ts') = await import(
    new URL('../dist/index.js', import.meta.url).href
  );
  const { default: app }: { default: App } = await import(new URL('servers/app.mjs', import.meta.url).href);
  const stateDir = mkdtempSync(join(tmpdir(), 'master-agent-bench-'));
  process.once('exit', () => rmSync(stateDir, { recursive: true, force: true }));
  const service = createService({
    app,
    config: { host: '127.0.0.1', port: 0, opsPort: 0, stateDir },
    log: pino(pino.destination('/dev/null')),
  });
  await service.start();
  return service.server;
}

function report(results: Map<string, number[]>): void {
  const bare = Math.min(...(results.get('bare node:http') ?? []));
  const figures = [...results].map(([name, nanos]) => {
    const best = Math.min(...nanos);
    return { name, best, more: best - bare, ratio: bare / best, nanos };
  });
  if (values.json) {
    console.log(JSON.stringify({ node: process.version, rounds, batches, load, figures }));
    return;
  }
  console.log(`\n## One JSON route without the kernel: the best of ${rounds} processes each\n`);
  console.log(`${machine(availableParallelism(), load)}\n`);
  console.log(
    table(
      ['server', 'ns/request', 'spread', 'more than bare', 'of bare'],
      figures.map(({ name, best, nanos, more, ratio }) => [
        name,
        ...[best.toFixed(0), spread(nanos, 0), more.toFixed(0), ratio.toFixed(2)],
      ]),
    ),
  );
}
