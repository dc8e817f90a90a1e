import { rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { type Config, formatOf, wordsOf } from '../../config/settings.ts';
import type { Host, Settings } from '../../control/backend.ts';
import { LEAST_STOP_MS } from '../../control/stop.ts';
import { messageOf } from '../../error.ts';
import { ExitCode, StartError } from '../../exit-code.ts';
import type { ProgramStatus } from '../../ops/status.ts';
import { seconds, within } from '../../platform/deadline.ts';
import { type Deferred, deferred } from '../../platform/deferred.ts';
import { LogOutput } from '../../platform/log-output.ts';
import { plural } from '../../plural.ts';
import { backOff } from '../back-off.ts';
import { Instance } from './instance.ts';
import { openSocketDirectory, planLaunch } from './launch.ts';

/** An instance that has served so long has not died at once. */
const SETTLED_MS = 10_000;
/** So many failures in a row with none that serves are the end: together with the waits between them, some 20 s. */
const MOST_FAILURES = 8;
/** What the system gets to end a process that is killed. */
const REAP_MS = 300;

/** The instances of the guarded program: those that serve, those that are being started, and those that leave. */
export class Instances {
  readonly #host: Host;
  readonly #outputs: Readonly<Record<1 | 2, LogOutput>>;
  /** Every process alive. */
  readonly #all = new Set<Instance>();
  /** Those that requests are given to, and in the place of one that has ended, that one. */
  #serving: Instance[] = [];
  /** What those that serve were made from. */
  #settings: Settings;
  /** 1 for the first set of settings and instances. */
  #generation = 1;
  #directory = '';
  #number = 0;
  /** Failures in a row. */
  #failures = 0;
  /** Set while requests are held. Resolves when they are not any more. */
  #hold: Deferred<void> | undefined;
  #health: NodeJS.Timeout | undefined;
  readonly #stop = new AbortController();
  readonly #restarts = { ended: 0, unhealthy: 0, deaf: 0 };
  /** Whether one had to be killed at the end, because it did not end when it was told to. */
  isForced = false;

  constructor(host: Host, settings: Settings) {
    this.#host = host;
    this.#settings = settings;
    const dropped = (count: number): string => `${plural(count, 'line')} of the program dropped\n`;
    this.#outputs = { 1: new LogOutput(1, dropped), 2: new LogOutput(2, dropped) };
  }

  get #config(): Config {
    return this.#settings.config;
  }

  get #stopping(): boolean {
    return this.#stop.signal.aborted;
  }

  /** Undefined when a connection is all that is asked for. */
  get healthPath(): string | undefined {
    const { guardReady } = this.#config;
    return guardReady === 'off' ? undefined : guardReady;
  }

  status(): ProgramStatus {
    const now = performance.now();
    return {
      command: wordsOf(this.#config.guardCommand ?? '[]').join(' '),
      holding: this.#hold !== undefined,
      restarts: { ...this.#restarts },
      instances: [...this.#all].map(({ pid, generation, state, inFlight, readyMs, failures }) => ({
        ...{ pid, generation, state: state as ProgramStatus['instances'][number]['state'] },
        in_flight: inFlight,
        serving_seconds: readyMs === undefined ? 0 : Math.round((now - readyMs) / 1000),
        failed_checks: failures,
      })),
    };
  }

  /** Whether a request that comes now is given to one, or held until there is one. */
  get isServed(): boolean {
    return this.#hold !== undefined || this.pick() !== undefined;
  }

  /** The one that serves with the fewest requests in flight. */
  pick(): Instance | undefined {
    let least: Instance | undefined;
    for (const instance of this.#serving)
      if (instance.state === 'serving' && (least === undefined || instance.inFlight < least.inFlight))
        least = instance;
    return least;
  }

  /** While requests are held: resolves when they need not be any more, or have been for GUARD_HOLD. */
  async held(): Promise<void> {
    if (this.#hold !== undefined) await within(this.#config.guardHoldMs, this.#hold.promise);
  }

  /** @throws StartError or ConfigError when one of them does not become ready; then none of them is left */
  async start(): Promise<void> {
    this.#directory = openSocketDirectory(this.#config.stateDir);
    try {
      const instances = await this.#startAll(this.#settings, this.#generation);
      this.#serve(instances);
    } catch (error) {
      // The stop that has overtaken the start ends what is left.
      if (this.#stopping) return;
      await this.#removeDirectory();
      throw error;
    }
    this.#watchHealth();
  }

  /** From now on these serve. One of them may have ended while the others became ready. */
  #serve(instances: Instance[]): void {
    this.#failures = 0;
    this.#serving = instances;
    for (const instance of instances) {
      if (instance.state === 'ended') void this.#replace(instance);
      else instance.state = 'serving';
    }
    this.#host.changed();
  }

  async #startAll(settings: Settings, generation: number): Promise<Instance[]> {
    const count = Math.max(1, settings.config.workers);
    const attempts = await Promise.allSettled(
      Array.from({ length: count }, () => this.#startOne(settings, generation)),
    );
    const failed = attempts.find((attempt) => attempt.status === 'rejected');
    const instances = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
    if (failed === undefined) return instances;
    for (const instance of instances) instance.kill();
    throw failed.reason;
  }

  /** @throws StartError or ConfigError when it does not become ready; then it is gone */
  async #startOne(settings: Settings, generation: number): Promise<Instance> {
    const { config, variables } = settings;
    this.#number += 1;
    const launch = await planLaunch(config, variables, this.#directory, this.#number);
    const instance = new Instance({
      ...{ launch, generation, write: this.#write },
      ended: (gone, was) => this.#ended(gone, was),
    });
    this.#all.add(instance);
    const { name, pid, label } = instance;
    this.#host.log.info(
      instance.isElsewhere
        ? `Program ${label} is run by somebody else`
        : `Program ${name} started (pid ${pid})`,
    );
    this.#host.changed();
    const path = config.guardReady === 'off' ? undefined : config.guardReady;
    const failure = await instance.ready(path, config.startTimeoutMs);
    if (failure === undefined) {
      const took = (instance.readyMs ?? 0) - instance.startedMs;
      this.#host.log.info(`Program ${label} is ready after ${seconds(took)}s`);
      return instance;
    }
    instance.kill();
    const which = instance.isElsewhere ? 'GUARD_PORT: the program' : `GUARD_COMMAND: ${name}`;
    throw new StartError(`${which} ${failure}`, ExitCode.Internal);
  }

  readonly #write = (line: string, fd: 1 | 2, { name, pid }: Instance): void => {
    const isText = formatOf(this.#config.logFormat) === 'text';
    this.#outputs[fd].write(isText ? `${name}[${pid}]: ${line}` : line);
  };

  #ended(instance: Instance, was: Instance['state']): void {
    this.#all.delete(instance);
    this.#host.changed();
    const { label, end, isTold } = instance;
    this.#host.log[isTold ? 'info' : 'error'](`Program ${label} ended ${end}`);
    if (was !== 'serving' || this.#stopping) return;
    if (!isTold) void this.#noteEnd(instance);
    void this.#replace(instance);
  }

  /** It has ended by itself. A program that goes into the background is out of our reach. */
  async #noteEnd(instance: Instance): Promise<void> {
    this.#restarts.ended += 1;
    // What it has forked is ending.
    await delay(REAP_MS);
    if ((await instance.ask(undefined, REAP_MS)) !== undefined) return;
    this.#host.log.error(
      `Something else accepts connections in place of program ${instance.label}, which has ended: it must stay in the foreground`,
    );
  }

  /** It does not accept connections, although it was not told to stop: it finishes what it has, and is replaced. */
  async noteDeaf(instance: Instance): Promise<void> {
    if (instance.state !== 'serving' || this.#stopping) return;
    instance.state = 'leaving';
    // The system closes the sockets of a process before it tells that it has ended.
    if (await within(REAP_MS, instance.ended)) void this.#noteEnd(instance);
    else {
      this.#host.log.error(
        `Program ${instance.label} no longer accepts connections, although it was not told to stop: it is replaced`,
      );
      this.#restarts.deaf += 1;
      void this.#retire(instance);
    }
    void this.#replace(instance);
  }

  /** Tries until there is one again in its place: a program that cannot start now may be able to later. */
  async #replace(old: Instance): Promise<void> {
    const settings = this.#settings;
    const isNeeded = (): boolean =>
      !this.#stopping && this.#settings === settings && this.#serving.includes(old);
    if (!isNeeded()) return;
    const servedMs = performance.now() - (old.readyMs ?? performance.now());
    this.#failures = servedMs >= SETTLED_MS ? 0 : this.#failures + 1;
    if (!canOverlap(settings.config)) await old.ended;
    for (;;) {
      await backOff(this.#failures - 1, this.#stop.signal);
      if (!isNeeded()) return;
      try {
        const instance = await this.#startOne(settings, this.#generation);
        if (!isNeeded()) instance.kill();
        else {
          this.#serving[this.#serving.indexOf(old)] = instance;
          if (instance.state === 'ended') void this.#replace(instance);
          else instance.state = 'serving';
          this.#host.changed();
        }
        return;
      } catch (error) {
        if (!isNeeded()) return;
        this.#failures += 1;
        this.#host.log.error(`The program could not be restarted: ${messageOf(error)}`);
        if (this.#failures < MOST_FAILURES || this.pick() !== undefined) continue;
        this.#host.lost(new Error(`${plural(this.#failures, 'failure')} in a row`, { cause: error }));
        return;
      }
    }
  }

  /**
   * New instances with the program and the settings on disk.
   * @throws Error that says why the old ones serve on, or, where two cannot run at once, are started again
   */
  async reload(settings: Settings): Promise<void> {
    const old = this.#serving;
    const generation = this.#generation + 1;
    if (canOverlap(settings.config)) {
      const instances = await this.#startAll(settings, generation);
      this.#settings = settings;
      this.#generation = generation;
      this.#serve(instances);
      for (const instance of old) if (instance.state === 'serving') void this.#retire(instance);
      return;
    }
    const before = this.#settings;
    const hold = deferred<void>();
    this.#hold = hold;
    this.#settings = settings;
    this.#serving = [];
    try {
      await Promise.all(old.map((instance) => this.#retire(instance)));
      const instances = await this.#startAll(settings, generation);
      this.#generation = generation;
      this.#serve(instances);
    } catch (error) {
      this.#settings = { ...before };
      this.#serving = [...old];
      for (const instance of old) void this.#replace(instance);
      throw error;
    } finally {
      this.#hold = undefined;
      hold.resolve();
    }
  }

  /** Ends one when it has finished what it has. */
  async #retire(instance: Instance): Promise<void> {
    const { shutdownTimeoutMs } = this.#config;
    if (instance.state === 'ended') return;
    instance.state = 'leaving';
    this.#host.changed();
    await within(shutdownTimeoutMs, instance.drained());
    await this.#end(instance, shutdownTimeoutMs);
  }

  /** Tells one to end, and when it does not in time, kills it with all of its group. */
  async #end(instance: Instance, ms: number): Promise<void> {
    instance.terminate();
    if (await within(ms, instance.ended)) return;
    this.#host.log.error(`Program ${instance.label} did not end after ${seconds(ms)}s and is killed`);
    this.isForced = true;
    instance.kill();
    await within(REAP_MS, instance.ended);
  }

  /** Asks those that serve, again and again. A setting that is off now may be on after a reload. */
  #watchHealth(): void {
    const { guardHealthIntervalMs: ms } = this.#config;
    this.#health = setTimeout(async () => {
      if (ms > 0) await Promise.all(this.#serving.map((instance) => this.#checkHealth(instance, ms)));
      if (!this.#stopping) this.#watchHealth();
    }, ms || SETTLED_MS);
  }

  async #checkHealth(instance: Instance, ms: number): Promise<void> {
    const { guardHealthFailures } = this.#config;
    if (instance.state !== 'serving') return;
    const failure = await instance.ask(this.healthPath, ms);
    instance.failures = failure === undefined ? 0 : instance.failures + 1;
    if (instance.failures < guardHealthFailures || instance.state !== 'serving' || this.#stopping) return;
    const { label, failures } = instance;
    this.#host.log.error(
      `Program ${label} has failed ${plural(failures, 'health check')} in a row (${failure}): it is killed`,
    );
    this.#restarts.unhealthy += 1;
    instance.kill();
  }

  /** From now on nothing is replaced. What starts beside those that serve is of no use; what requests wait for is. */
  stopOrdered(): void {
    this.#stop.abort();
    clearTimeout(this.#health);
    if (this.#hold === undefined)
      for (const instance of this.#all) if (instance.state === 'starting') instance.kill();
  }

  /** Ends all of them within what is left of the stop. */
  async stop(): Promise<void> {
    this.stopOrdered();
    const deadlineMs = this.#host.lifecycle.order?.deadlineMs ?? 0;
    const ms = Math.max(deadlineMs - performance.now(), LEAST_STOP_MS) - 2 * REAP_MS;
    await Promise.all([...this.#all].map((instance) => this.#end(instance, ms)));
    await this.#removeDirectory();
  }

  async #removeDirectory(): Promise<void> {
    const removed = rm(this.#directory, { recursive: true, force: true });
    await within(REAP_MS, removed).catch(() => false);
  }
}

/** Whether two instances may run at once. */
function canOverlap({ guardOverlap, guardPort }: Config): boolean {
  return guardOverlap && guardPort === 0;
}
