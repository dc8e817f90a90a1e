import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { Status } from '../../src/ops/status.ts';
import { type Block, blocksOf, checkout } from '../support/documents.ts';
import { ROOT } from '../support/root.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const LIMIT_MS = 120_000;
t.setTimeout(LIMIT_MS);

const DOCUMENTS = [
  'README.md',
  'deployment/README.md',
  ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`),
];
const TOKEN = 'a-token-of-the-documents';
const APP = 'bench/demo-app.mjs';

/** What a block is run with: the ports it names are not free here, so it gets others. */
interface Ports {
  readonly port: number;
  readonly opsPort: number;
}

function withPorts(text: string, { port, opsPort }: Ports): string {
  return text
    .replaceAll(/\b(localhost|127\.0\.0\.1):8000\b/g, `$1:${port}`)
    .replaceAll(/\b(localhost|127\.0\.0\.1):8001\b/g, `$1:${opsPort}`);
}

function environment({ port, opsPort }: Ports): NodeJS.ProcessEnv {
  const { STATE_DIR: _, ...env } = process.env;
  return { ...env, HOST: '127.0.0.1', PORT: `${port}`, OPS_PORT: `${opsPort}`, LOG_FORMAT: 'text' };
}

/** Runs a block as a reader would who pastes it into a shell. */
async function paste(t: Test, cwd: string, text: string, ports: Ports): Promise<void> {
  const script = withPorts(text, ports);
  const output = await new Promise<string>((resolve) => {
    const options = { cwd, env: environment(ports), timeout: LIMIT_MS };
    execFile('bash', ['-euo', 'pipefail', '-c', script], options, (error, stdout, stderr) =>
      resolve(error === null ? '' : `${error.message}\n${stdout}\n${stderr}`),
    );
  });
  t.equal(output, '', script);
}

/** Runs a block as its note says. */
async function runBlock(t: Test, cwd: string, { note, text }: Block): Promise<void> {
  const [, start, , settings = ''] =
    /^(with a (service|past)|after an emergency)(?:: (.*))?$/.exec(note) ?? [];
  if (start === undefined) {
    t.equal(note, '', `a note that is known: ${note}`);
    await paste(t, cwd, text, { port: 0, opsPort: 0 });
    return;
  }
  const service = await ServiceProcess.running(t, {
    args: [APP],
    cwd,
    stateDir: join(cwd, 'var'),
    env: { ADMIN_TOKEN: TOKEN, ...Object.fromEntries(settings === '' ? [] : [settings.split('=')]) },
  });
  if (start === 'with a service') await paste(t, cwd, text, service);
  if (start === 'after an emergency') {
    const headers = { Authorization: `Bearer ${TOKEN}` };
    await service.operator('/admin/emergency-shutdown', { method: 'POST', headers });
  } else service.signal('SIGTERM');
  t.equal((await service.exited).code, 0, service.output);
  if (start !== 'with a service') await paste(t, cwd, text, { port: 0, opsPort: 0 });
}

/** A line of the block for several terminals, running. */
class Terminal {
  readonly lines: string[] = [];
  readonly exited: Promise<number | null>;
  readonly #output: Interface;

  constructor(t: Test, cwd: string, line: string, ports: Ports) {
    const child = spawn('bash', ['-c', `exec env ${withPorts(line, ports)}`], {
      cwd,
      env: environment(ports),
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    this.#output = createInterface({ input: child.stdout });
    this.#output.on('line', (text) => this.lines.push(text));
    this.exited = once(child, 'close').then(([code]) => code);
    t.teardown(() => child.kill('SIGKILL'));
  }

  async line(text: string): Promise<string> {
    for (;;) {
      const found = this.lines.find((line) => line.includes(text));
      if (found !== undefined) return found;
      const ended = this.exited.then((code) => {
        throw new Error(`it ended with ${code} before "${text}":\n${this.lines.join('\n')}`);
      });
      await Promise.race([once(this.#output, 'line'), ended]);
    }
  }
}

async function runTerminals(t: Test, cwd: string, text: string): Promise<void> {
  const lines = text.trimEnd().split('\n');
  t.equal(lines.length, 4);
  const [serve = '', ask = '', stop = '', late = ''] = lines.map((line) => line.replace(/\s+#.*$/, ''));
  const first = new Terminal(t, cwd, serve, { port: 0, opsPort: 0 });
  const portOf = (line: string): number => Number(/:(\d+)\D*$/.exec(line)?.[1]);
  const opsPort = portOf(await first.line('Ops server listening'));
  const ports = { port: portOf(await first.line('Service state: RUNNING')), opsPort };
  const second = new Terminal(t, cwd, ask, ports);
  while ((await inFlight(ports)) === 0) await delay(10);
  const third = new Terminal(t, cwd, stop, ports);
  await first.line('Service state: STOPPING');
  const fourth = new Terminal(t, cwd, late, ports);
  t.equal(await fourth.exited, 0);
  t.match(fourth.lines.join('\n'), /^HTTP\/1\.1 503 [\s\S]*"fail_safe":true/);
  t.equal(await second.exited, 0);
  t.match(second.lines.join('\n'), /"seconds":10/, 'the report arrives');
  t.equal(await first.exited, 0, first.lines.join('\n'));
  t.equal(await third.exited, 0, third.lines.join('\n'));
  t.match(third.lines.join('\n'), 'Draining: 1 in flight', 'and the drain is shown');
}

async function inFlight({ opsPort }: Ports): Promise<number> {
  const response = await fetch(`http://127.0.0.1:${opsPort}/status`);
  return ((await response.json()) as Status).in_flight.count;
}

for (const document of DOCUMENTS) {
  t.test(`the commands of ${document} run`, async (t) => {
    const blocks = blocksOf(document).filter(
      ({ language, note }) => language === 'sh' && !note.startsWith('not run: '),
    );
    const cwd = checkout(tempDir(t));
    for (const block of blocks) {
      if (block.note === 'terminals') await runTerminals(t, cwd, block.text);
      else await runBlock(t, cwd, block);
      // What a block leaves in the background is for the next one.
      if (block.text.trimEnd().endsWith('&')) {
        while (!existsSync(join(cwd, 'master-agent.pid'))) await delay(10);
      }
    }
    t.notOk(existsSync(join(cwd, 'master-agent.pid')) && (await isLeft(cwd)), 'nothing is left running');
  });
}

/** Whether a service is left that wrote a PID file; `stop` waits for one that is on its way. */
async function isLeft(cwd: string): Promise<boolean> {
  const env = { ...environment({ port: 0, opsPort: 0 }), PID_FILE: 'master-agent.pid' };
  const child = spawn(process.execPath, ['dist/main.js', 'stop'], { cwd, env, stdio: 'ignore' });
  await once(child, 'close');
  return existsSync(join(cwd, 'master-agent.pid'));
}
