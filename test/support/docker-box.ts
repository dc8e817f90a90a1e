import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import type { Test } from 'tap';
import { INSTALL } from './need.ts';
import { ROOT } from './root.ts';

const SCRIPT = join(ROOT, 'test/support/docker-box.sh');
/** The exit code with which the script says that no daemon can run here. */
const CANNOT = 77;
/** All of a file's tests, on a slow machine. */
const FILE_MS = 180_000;

export interface Output {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A Docker daemon of its own, which lives as long as the test that has started it. */
export class DockerBox {
  readonly #host: string;

  private constructor(host: string) {
    this.#host = host;
  }

  /**
   * @param image the name under which a stand-in for a base image is to be found
   * @param pythonImage the name of another one, with Python
   */
  static async start(t: Test, image: string, pythonImage = ''): Promise<DockerBox> {
    t.setTimeout(FILE_MS);
    const script = spawn(SCRIPT, [ROOT, image, pythonImage], { stdio: ['pipe', 'pipe', 'inherit'] });
    const exited = once(script, 'exit');
    t.teardown(async () => {
      script.stdin.end();
      await exited;
    });
    const [said] = await once(createInterface({ input: script.stdout }), 'line');
    if (said.startsWith('unix:')) return new DockerBox(said);
    const [code] = await exited;
    const hint = code === CANNOT ? `; it needs root and: ${INSTALL.docker}` : '';
    throw new Error(`docker-box.sh ended with ${code}: ${said}${hint}`);
  }

  run(...args: string[]): Promise<Output> {
    return this.#run('docker', args);
  }

  /** docker-compose, the one of Debian. */
  compose(...args: string[]): Promise<Output> {
    return this.#run('docker-compose', args);
  }

  async #run(program: string, args: readonly string[]): Promise<Output> {
    const child = spawn(program, args, {
      cwd: ROOT,
      env: { ...process.env, DOCKER_HOST: this.#host, DOCKER_BUILDKIT: '0' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [stdout, stderr, [code]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'close'),
    ]);
    return { code, stdout, stderr };
  }

  /** @returns its standard output. @throws when it fails */
  async ok(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...args);
    if (code !== 0) throw new Error(`docker ${args.join(' ')} ended with ${code}:\n${stdout}${stderr}`);
    return stdout.trim();
  }

  async inspect<T>(format: string, name: string): Promise<T> {
    return JSON.parse(await this.ok('inspect', '--format', `{{json ${format}}}`, name));
  }

  /** Follows a container's log until a line has this text. @throws when it ends before */
  async line(container: string, wanted: string): Promise<string> {
    const child = spawn('docker', ['logs', '--follow', container], {
      env: { ...process.env, DOCKER_HOST: this.#host },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      for await (const line of createInterface({ input: child.stdout }))
        if (line.includes(wanted)) return line;
    } finally {
      child.kill();
    }
    throw new Error(`${container} ended without "${wanted}"`);
  }
}
