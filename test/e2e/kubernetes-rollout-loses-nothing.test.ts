import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { readRecords } from '../support/audit.ts';
import { type Deployment, manifest, type Probe, podSettings } from '../support/manifests.ts';
import { need } from '../support/need.ts';
import { Clients, freePort, listening } from '../support/replicas.ts';
import { type Exit, ServiceProcess, TEST_APP, tempDir } from '../support/service-process.ts';

const REPLICAS = 3;
const CLIENTS = 8;
/** How long the cluster takes to tell every node that an endpoint is gone. It has to be shorter than the preStop hook. */
const PROPAGATION_MS = 2_000;
const ADMIN_TOKEN = 'the-token-of-the-administrator';
need('haproxy');

/** The manifests are what the kubelet below goes by. */
const { spec } = manifest<Deployment>('Deployment');
const pod = spec.template.spec;
const [container] = pod.containers;

/**
 * A Service as kube-proxy makes one: it picks a pod for each connection, asks nobody for health, sends nothing again,
 * and leaves open connections alone when their endpoint is taken away.
 */
class ClusterService {
  readonly port: number;
  readonly #socket: string;
  #slots = 0;

  private constructor(port: number, socket: string) {
    this.port = port;
    this.#socket = socket;
  }

  static async open(t: Test): Promise<ClusterService> {
    const dir = tempDir(t);
    const socket = join(dir, 'admin');
    const port = await freePort();
    const file = join(dir, 'haproxy.cfg');
    writeFileSync(
      file,
      `global\n stats socket ${socket} level admin\ndefaults\n mode tcp\n retries 0\n timeout connect 1s\n` +
        ' timeout client 60s\n timeout server 60s\n' +
        `listen service\n bind 127.0.0.1:${port}\n balance random\n server-template pod 8 127.0.0.1:9 disabled\n`,
    );
    await listening(t, spawn('haproxy', ['-db', '-f', file], { stdio: ['ignore', 'ignore', 'pipe'] }), port);
    return new ClusterService(port, socket);
  }

  /** @returns what takes the endpoint away */
  async add(port: number): Promise<() => Promise<void>> {
    this.#slots += 1;
    const server = `service/pod${this.#slots}`;
    await this.#run(`set server ${server} addr 127.0.0.1 port ${port}; set server ${server} state ready`);
    return () => this.#run(`set server ${server} state maint`);
  }

  async #run(commands: string): Promise<void> {
    const client = connect(this.#socket);
    client.end(`${commands}\n`);
    const said = (await text(client)).trim();
    if (!/^(IP changed .*|port changed .*|no need to change .*)?$/s.test(said)) throw new Error(said);
  }
}

/** One container in a pod, started, probed and ended as the kubelet does it. */
class Pod {
  readonly service: ServiceProcess;
  #removeEndpoint: () => Promise<void> = async () => undefined;

  private constructor(service: ServiceProcess) {
    this.service = service;
  }

  static async ready(t: Test, cluster: ClusterService, stateDir = tempDir(t)): Promise<Pod> {
    const pod = new Pod(ServiceProcess.spawn(t, { stateDir, env: environment(stateDir) }));
    // Which ports it has been given, it says itself: here all pods share one address.
    await pod.service.accepting();
    await pod.#probe(container.startupProbe);
    await pod.#probe(container.readinessProbe);
    pod.#removeEndpoint = await cluster.add(pod.service.port);
    return pod;
  }

  async #probe({ httpGet: { path }, periodSeconds, failureThreshold }: Probe): Promise<void> {
    for (let failures = 0; failures < failureThreshold; failures += 1) {
      if ((await this.service.operator(path)).ok) return;
      await delay(periodSeconds * 1000);
    }
    throw new Error(`${path} has failed ${failureThreshold} times`);
  }

  /** The endpoint goes when it goes; meanwhile the hook, the signal, and the kill at the end of the grace period. */
  async terminate(): Promise<Exit> {
    const removed = delay(PROPAGATION_MS).then(this.#removeEndpoint);
    const gracePeriod = AbortSignal.timeout(pod.terminationGracePeriodSeconds * 1000);
    gracePeriod.addEventListener('abort', () => this.service.signal('SIGKILL'));
    await delay(container.lifecycle.preStop.sleep.seconds * 1000);
    this.service.signal('SIGTERM');
    const exit = await this.service.exited;
    await removed;
    return exit;
  }
}

/** The settings of the pods; ports, directory and token are those of this machine. */
function environment(stateDir: string): Record<string, string | undefined> {
  return {
    ...podSettings(),
    ...{ HOST: '127.0.0.1', OPS_HOST: '127.0.0.1', PORT: '0', OPS_PORT: '0', LOG_FORMAT: 'text' },
    ...{ STATE_DIR: stateDir, ADMIN_TOKEN, ADMIN_TOKEN_FILE: undefined },
  };
}

t.test('a rollout of three replicas fails no request', async (t) => {
  t.equal(spec.strategy.rollingUpdate.maxUnavailable, 0, 'so a new pod is ready before an old one goes');
  const cluster = await ClusterService.open(t);
  const old: Pod[] = [];
  for (let index = 0; index < REPLICAS; index += 1) old.push(await Pod.ready(t, cluster));
  const fresh = new Clients(cluster.port, CLIENTS, { connections: 'fresh' });
  const kept = new Clients(cluster.port, CLIENTS, { connections: 'kept', resend: true });
  await Promise.all([fresh.served(50), kept.served(50)]);

  const pods = [...old];
  for (const leaving of old) {
    pods.push(await Pod.ready(t, cluster));
    t.strictSame(await leaving.terminate(), { code: 0, signal: null }, 'within the grace period');
    t.equal(leaving.service.report().cut.length, 0);
  }

  await Promise.all([fresh.served(50), kept.served(50)]);
  const ledgers = [await fresh.stop(), await kept.stop()];
  t.strictSame(ledgers[0]?.errors, [], 'who opens a connection for each request is not even refused');
  t.strictSame(ledgers[1]?.errors, [], 'who keeps one is refused at the lock, sends again, and is served');
  t.ok(ledgers[1]?.resent, 'the lock was met');

  for (const { service } of pods.slice(REPLICAS)) {
    service.signal('SIGTERM');
    t.strictSame(await service.exited, { code: 0, signal: null });
  }
  const done = pods.flatMap(({ service: { stateDir } }) =>
    readRecords(join(stateDir, 'audit.ndjson'), 'request'),
  );
  const posts = ledgers.reduce((sum, { posts }) => sum + posts, 0);
  t.equal(done.filter(({ method }) => method === 'POST').length, posts, 'each POST was done once');
});

t.test(
  'a container that the kubelet starts again after an emergency stays latched, as long as its pod lives',
  async (t) => {
    const emptyDir = tempDir(t);
    const cluster = await ClusterService.open(t);
    const pod = await Pod.ready(t, cluster, emptyDir);
    const asked = await pod.service.operator('/admin/emergency-shutdown', {
      method: 'POST',
      headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
    });
    t.equal(asked.status, 200);
    t.strictSame(await pod.service.exited, { code: 0, signal: null });
    for (let restart = 0; restart < 2; restart += 1) {
      const again = ServiceProcess.spawn(t, {
        args: [TEST_APP],
        stateDir: emptyDir,
        env: environment(emptyDir),
      });
      t.strictSame(await again.exited, { code: 75, signal: null });
    }
    await Pod.ready(t, cluster);
    t.pass('a new pod has a new directory: that is the person who deletes the old one');
  },
);
