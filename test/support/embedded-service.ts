import { mkdirSync } from 'node:fs';
import { pino } from 'pino';
import type { Test } from 'tap';
import { type App, type Config, createService, type Service } from '../../src/index.ts';
import { tempDir } from './service-process.ts';

export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** A service in the process of the test, with what it has logged. */
export interface Embedded {
  readonly service: Service;
  readonly stateDir: string;
  readonly lines: readonly LogLine[];
  /** The first line that contains `text`, as soon as it is there. */
  line(text: string): Promise<LogLine>;
  readonly port: number;
  readonly opsPort: number;
  /** Asks the service's door. */
  ask(path: string, init?: RequestInit): Promise<Response>;
  /** Asks the ops server. */
  operator(path: string, init?: RequestInit): Promise<Response>;
}

export interface EmbeddedOptions {
  readonly app?: App;
  readonly config?: Partial<Config>;
  readonly stateDir?: string;
}

/** Makes one that has not started; what it is at the end of the test, it is forced to its end. */
export function embedded(t: Test, { app, config, stateDir = tempDir(t) }: EmbeddedOptions = {}): Embedded {
  mkdirSync(stateDir, { recursive: true });
  const lines: LogLine[] = [];
  const waiting = new Set<(line: LogLine) => void>();
  const log = pino(
    { level: config?.logLevel ?? 'info', formatters: { level: (label) => ({ level: label }) } },
    {
      write(json) {
        const line: LogLine = JSON.parse(json);
        lines.push(line);
        for (const look of waiting) look(line);
      },
    },
  );
  const service = createService({
    ...(app === undefined ? {} : { app }),
    config: { host: '127.0.0.1', port: 0, opsPort: 0, stateDir, auditLog: 'off', ...config },
    log,
  });
  t.teardown(() => service.force('the end of the test'));
  const port = (): number => service.address?.port ?? 0;
  const opsPort = (): number => service.opsAddress?.port ?? 0;
  return {
    service,
    stateDir,
    lines,
    line: (text) =>
      new Promise((found) => {
        const look = (line: LogLine): void => {
          if (!line.msg.includes(text)) return;
          waiting.delete(look);
          found(line);
        };
        waiting.add(look);
        for (const line of lines) look(line);
      }),
    get port() {
      return port();
    },
    get opsPort() {
      return opsPort();
    },
    ask: async (path, init) => fetch(`http://127.0.0.1:${port()}${path}`, init),
    operator: async (path, init) => fetch(`http://127.0.0.1:${opsPort()}${path}`, init),
  };
}

/** Makes one and comes back when it accepts requests. */
export async function running(t: Test, options: EmbeddedOptions = {}): Promise<Embedded> {
  const made = embedded(t, options);
  await made.service.start();
  return made;
}

/** Doors that open when told to: `await doors.wait('a')` goes on after `doors.open('a')`. */
export class Doors {
  readonly #open = new Map<string, () => void>();
  readonly #promises = new Map<string, Promise<void>>();

  wait(name: string): Promise<void> {
    let promise = this.#promises.get(name);
    if (promise === undefined) {
      promise = new Promise((resolve) => this.#open.set(name, resolve));
      this.#promises.set(name, promise);
    }
    return promise;
  }

  open(name: string): void {
    void this.wait(name);
    this.#open.get(name)?.();
  }
}
