import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import root, { type Test } from 'tap';
import type { ShutdownReport } from '../../src/lifecycle/last-shutdown.ts';
import { ROOT } from './root.ts';
import { MAIN, ServerProcess } from './server-process.ts';

export { type Exit, MAIN, POLL_MS } from './server-process.ts';

/** What the runner grants, also under node's: machines are slow, and a test that waits for a state waits for it. */
const LIMIT_MS = 240_000;
root.setTimeout(LIMIT_MS);

/** The application most tests run: its handlers wait until the test lets them go, never for a time. */
export const TEST_APP = join(ROOT, 'test/fixtures/app.mjs');

export interface SpawnOptions {
  /** Arguments behind the program; default: the test application. */
  readonly args?: readonly string[];
  /** Default: `main`. */
  readonly program?: string;
  /** For node, in front of the program. */
  readonly nodeArgs?: readonly string[];
  /** Undefined: not set at all, so that a `.env` can set it. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Default: a directory of its own, removed at the end. */
  readonly stateDir?: string;
  readonly cwd?: string;
}

/** A directory that goes with the test. */
export function tempDir(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'master-agent-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** A real process of the service, or of one of its commands. Ended at the end of the test, by its pid. */
export class ServiceProcess extends ServerProcess {
  readonly stateDir: string;

  private constructor(
    t: Test,
    {
      program = MAIN,
      args = [TEST_APP],
      nodeArgs = [],
      env = {},
      stateDir = tempDir(t),
      cwd = ROOT,
    }: SpawnOptions,
  ) {
    t.setTimeout(LIMIT_MS);
    // Nothing of what the tests themselves need: a child is what users run.
    super(process.execPath, [...nodeArgs, program, ...args], {
      cwd,
      env: {
        ...{ HOST: '127.0.0.1', PORT: '0', OPS_PORT: '0' },
        ...{ LOG_FORMAT: 'text', STATE_DIR: stateDir, ...env },
      },
      // The channel lets a test release a handler when no request gets in any more.
      third: 'ipc',
    });
    this.stateDir = stateDir;
    t.teardown(() => this.kill());
  }

  /** Starts one and comes back at once. */
  static spawn(t: Test, options: SpawnOptions = {}): ServiceProcess {
    return new ServiceProcess(t, options);
  }

  /** Starts one and comes back when it accepts requests. */
  static async running(t: Test, options: SpawnOptions = {}): Promise<ServiceProcess> {
    const service = new ServiceProcess(t, options);
    await service.accepting();
    return service;
  }

  /** Sends the signal and comes back when the service is locked. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.signal(signal);
    await this.line('Service state: STOPPING');
  }

  /** Lets the handler that waits under this name go on. */
  release(name: string): void {
    this.child.send({ release: name });
  }

  /** What the end of the stop left behind, for the next start to show. */
  report(): ShutdownReport {
    return JSON.parse(readFileSync(join(this.stateDir, 'last-shutdown.json'), 'utf8'));
  }
}
