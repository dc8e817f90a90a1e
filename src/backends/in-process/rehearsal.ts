import { Duplex } from 'node:stream';
import { type Logger, pino } from 'pino';
import type { Config } from '../../config/settings.ts';
import { type StopParts, type StopPlan, stop } from '../../control/stop.ts';
import { ExitCode } from '../../exit-code.ts';
import { Lifecycle } from '../../lifecycle/lifecycle.ts';
import { within } from '../../platform/deadline.ts';
import { deferred } from '../../platform/deferred.ts';
import { TrustedProxies } from '../../server/trusted-proxies.ts';
import { InProcess } from './in-process.ts';
import type { Listener } from './listener.ts';

/** No answer is worth more waiting. */
const PATIENCE_MS = 1_000;
/** The first requests after a start do not wait behind a rehearsal, which keeps the loop busy for some 30 ms. */
const AFTER_START_MS = 250;

/** Rehearses when the start is over, unless a stop was ordered before. */
export function rehearseSoon(config: Config, lifecycle: Lifecycle, log: Logger): void {
  const begin = (): void => {
    if (lifecycle.order !== undefined) return;
    rehearse(config).catch((error) => log.debug({ err: error }, 'The rehearsal of a stop failed'));
  };
  setTimeout(begin, AFTER_START_MS).unref();
}

/**
 * Plays a request, a stop and a refusal on a service without an application and without an address. V8 compiles a
 * function when it is first called, so without this the first 503 of the real stop comes some milliseconds later.
 * @returns the status of each of its two answers; undefined for one that did not come
 */
export async function rehearse(config: Config): Promise<(number | undefined)[]> {
  const log = pino({ level: config.logLevel }, { write: () => undefined });
  const lifecycle = new Lifecycle();
  const nothing = (): void => undefined;
  const admin = { ask: async () => ({ attempt: 'no token is set', retryAfter: 0 }) as const };
  const listener = new NoListener();
  const backend = new InProcess(
    {
      ...{ log, lifecycle, admin, proxies: new TrustedProxies(undefined) },
      ...{ cut: nothing, auditLost: nothing, lost: nothing, changed: nothing },
    },
    { app: {}, config: { ...config, enableFailSafe: true }, listener, isRehearsal: true },
  );
  await backend.start(undefined);
  lifecycle.to('running');
  const client = new Client();
  backend.server.emit('connection', client);
  const admitted = await client.ask('/health');
  listener.close();
  const never = new Promise<void>(nothing);
  const parts: StopParts = {
    lifecycle,
    backend,
    log,
    cut: [],
    locked: nothing,
    closeAudit: async () => true,
  };
  const plan: StopPlan = {
    ...{ reason: 'rehearsal', announcement: 'Rehearsal.', exitCode: () => ExitCode.Ok },
    ...{ delayMs: 0, timeoutMs: PATIENCE_MS, failSafe: true, lockNow: never, cutNow: never },
  };
  const stopped = stop(parts, plan);
  const refused = await client.ask('/');
  await stopped;
  return [admitted, refused];
}

class NoListener implements Listener {
  readonly where = 'no address';
  accepting = true;

  async open(): Promise<void> {}

  async closeQueue(): Promise<void> {}

  close(): void {
    this.accepting = false;
  }
}

/** A connection in memory, and its client. */
class Client extends Duplex {
  bytesRead = 0;
  #answered = deferred<string>();

  async ask(path: string): Promise<number | undefined> {
    this.#answered = deferred();
    const request = `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;
    this.bytesRead += request.length;
    this.push(request);
    let status: number | undefined;
    const answered = this.#answered.promise.then((head) => {
      status = Number(head.split(' ')[1]);
    });
    await within(PATIENCE_MS, answered);
    return status;
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    done();
    this.#answered.resolve(chunk.toString('latin1'));
  }
}
