import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { PROGRAM } from '../support/guarded-program.ts';
import { type Deployment, ofKind, rendered } from '../support/manifests.ts';
import { RawClient } from '../support/raw-client.ts';
import { freePort } from '../support/replicas.ts';
import { type Exit, ServiceProcess, tempDir } from '../support/service-process.ts';

const LIMIT_MS = 120_000;
t.setTimeout(LIMIT_MS);

/** The manifests are what the kubelet below goes by. */
const documents = rendered('guard-sidecar');
const { terminationGracePeriodSeconds, containers } = ofKind<Deployment>(documents, 'Deployment').spec
  .template.spec;
const settings = ofKind<{ data: Record<string, string> }>(documents, 'ConfigMap').data;
const [gateContainer, programContainer] = containers;

/** A gate and its program in containers of their own, which share an address, as those of a pod do. */
class Pod {
  readonly gate: ServiceProcess;
  readonly program: ServiceProcess;
  readonly opsPort: number;

  private constructor(gate: ServiceProcess, program: ServiceProcess, opsPort: number) {
    this.gate = gate;
    this.program = program;
    this.opsPort = opsPort;
  }

  static async ready(t: Test): Promise<Pod> {
    const [opsPort, programPort] = [await freePort(), await freePort()];
    const program = ServiceProcess.spawn(t, { program: PROGRAM, args: [], env: { PORT: `${programPort}` } });
    const stateDir = tempDir(t);
    const gate = ServiceProcess.spawn(t, {
      stateDir,
      args: [...(gateContainer.args ?? [])],
      env: {
        ...settings,
        ...{
          HOST: '127.0.0.1',
          OPS_HOST: '127.0.0.1',
          PORT: '0',
          OPS_PORT: `${opsPort}`,
          LOG_FORMAT: 'text',
        },
        ...{ GUARD_PORT: `${programPort}`, STATE_DIR: stateDir, ADMIN_TOKEN_FILE: undefined },
      },
    });
    await gate.accepting();
    return new Pod(gate, program, opsPort);
  }

  /** Both at once: each container's hook, then its signal, and the kill at the end of the grace period. */
  async terminate(): Promise<Exit[]> {
    const gracePeriod = AbortSignal.timeout(terminationGracePeriodSeconds * 1000);
    gracePeriod.addEventListener('abort', () => {
      for (const one of [this.gate, this.program]) one.signal('SIGKILL');
    });
    const end = async (one: ServiceProcess, hook: Promise<unknown>): Promise<Exit> => {
      await hook;
      one.signal('SIGTERM');
      return one.exited;
    };
    return Promise.all([
      end(this.gate, delay(gateContainer.lifecycle.preStop.sleep.seconds * 1000)),
      end(this.program, this.#exec(programContainer?.lifecycle.preStop.exec.command ?? [])),
    ]);
  }

  /** The command of the manifest, which has the port of the manifest. */
  async #exec([file = '', ...args]: readonly string[]): Promise<void> {
    const hex = (port: number): string => port.toString(16).toUpperCase().padStart(4, '0');
    const words = args.map((arg) => arg.replaceAll(hex(Number(settings.OPS_PORT)), hex(this.opsPort)));
    const [code] = await once(spawn(file, words, { stdio: 'inherit' }), 'exit');
    if (code !== 0) throw new Error(`the hook ended with ${code}`);
  }
}

t.test('a program beside its gate is told when the gate has drained, and no request is lost', async (t) => {
  const pod = await Pod.ready(t);
  let goes = true;
  const answers: string[] = [];
  /** Each on a connection of its own, until none is taken any more. */
  const load = async (): Promise<void> => {
    while (goes) {
      const client = await RawClient.open(pod.gate.port).catch(() => undefined);
      if (client === undefined) return;
      const answer = await client.get('/pid').answer();
      if (answer.status === undefined) answers.push(answer.how);
      else answers.push(`${answer.status}${answer.body.includes('"fail_safe":true') ? ' fail_safe' : ''}`);
      client.destroy();
    }
  };
  const loads = Promise.all([load(), load()]);
  const body = 'a body that comes later';
  const held = (await RawClient.open(pod.gate.port)).request('POST', '/read', {
    'Content-Length': String(body.length),
  });
  held.write(body.slice(0, 6));
  await pod.program.line('reading');
  t.match(pod.gate.output, /Program at 127\.0\.0\.1:\d+ is run by somebody else$/m);
  t.notMatch(pod.gate.output, 'pid 0');

  const exits = pod.terminate();
  await pod.gate.line('Waiting up to');
  t.notMatch(pod.program.output, 'told to stop', 'the program does not know yet');
  held.write(body.slice(6));
  t.match(await held.response(), { status: 200, body: new RegExp(`"bytes":${body.length}`) });

  t.strictSame(await exits, [
    { code: 0, signal: null },
    { code: 0, signal: null },
  ]);
  goes = false;
  await loads;
  t.match(pod.program.output, 'told to stop');
  t.strictSame([...new Set(answers)].sort(), ['200', '503 fail_safe'], 'served, and then refused safely');
  t.equal(pod.gate.report().cut.length, 0);
});
