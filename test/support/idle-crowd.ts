import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { within } from '../../src/platform/deadline.ts';
import { ROOT } from './root.ts';

const CLIENTS = join(ROOT, 'test/support/idle-clients.ts');
/** Some thousands take seconds; who takes longer waits for something that does not come. */
const OPEN_MS = 120_000;

/** A process that holds idle connections, on each of which one request was answered. */
export class IdleCrowd {
  readonly #process: ChildProcess;

  private constructor(port: number, count: number) {
    const args = ['--import', 'tsx', CLIENTS, String(port), String(count)];
    this.#process = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  }

  /** @throws Error when not all of them could be opened, or not in time */
  static async open(port: number, count: number): Promise<IdleCrowd> {
    const crowd = new IdleCrowd(port, count);
    const ended = once(crowd.#process, 'exit').then(([code]) => {
      throw new Error(`the clients of ${count} connections ended with ${code}`);
    });
    try {
      const opened = once(crowd.#process.stdout as Readable, 'data');
      if (await within(OPEN_MS, Promise.race([opened, ended]))) return crowd;
      throw new Error(`${count} connections were not open after ${OPEN_MS / 1000} s`);
    } catch (error) {
      crowd.kill();
      throw error;
    } finally {
      ended.catch(() => undefined);
    }
  }

  /** Stops it where it is: it takes no processor from what is measured. */
  freeze(): void {
    this.#process.kill('SIGSTOP');
  }

  kill(): void {
    this.#process.kill('SIGKILL');
  }
}
