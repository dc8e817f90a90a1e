import { Socket } from 'node:net';
import type { Logger } from 'pino';
import type { AuditLog } from '../../audit/audit-log.ts';
import { openAudit } from '../../audit/open-audit.ts';
import { type Config, ConfigError, parseConfig } from '../../config/settings.ts';
import type { Closed, CloseLimits, Host } from '../../control/backend.ts';
import { logCut, stop } from '../../control/stop.ts';
import { FLUSH_MS } from '../../control/stop-budget.ts';
import { messageOf } from '../../error.ts';
import { ExitCode, StartError } from '../../exit-code.ts';
import type { CutRequest, ShutdownReport } from '../../lifecycle/last-shutdown.ts';
import { Lifecycle, type StopOrder } from '../../lifecycle/lifecycle.ts';
import type { AdminAnswer, AdminRequest } from '../../ops/admin.ts';
import type { OpenWork } from '../../ops/status.ts';
import { within } from '../../platform/deadline.ts';
import { type Deferred, deferred } from '../../platform/deferred.ts';
import { createLogger } from '../../platform/logger.ts';
import type { SignalActions, SignalTrap } from '../../platform/signals.ts';
import { RUN } from '../../server/request-id.ts';
import { TrustedProxies } from '../../server/trusted-proxies.ts';
import { InProcess } from '../in-process/in-process.ts';
import { rehearseSoon } from '../in-process/rehearsal.ts';
import { FlightRecorder } from './flight-recorder.ts';
import { HandedListener } from './handed-listener.ts';
import {
  BEAT_MS,
  type CallName,
  type Calls,
  FLIGHT_FD,
  type FromWorker,
  type OrderMessage,
  SHARES_FD,
  type ToWorker,
  WORKER_VARIABLE,
} from './messages.ts';
import { Shares } from './shares.ts';

/** What the audit log gets to be closed, however little is left. */
const LEAST_AUDIT_MS = 500;
/** How long the recorder's thread may take to run before the worker serves without it. */
const RECORDER_MS = 5_000;

/** An in-process backend in a process of its own, which a controller calls over the channel. */
export async function work(signals: SignalTrap): Promise<ExitCode> {
  try {
    const config = shareOf(parseConfig(process.env), Number(process.env[WORKER_VARIABLE]));
    const { logLevel: level, logFormat: format = 'json' } = config;
    const log = createLogger({ level, format, worker: process.pid });
    return await new Worker(config, log, signals).run();
  } catch (error) {
    const exitCode =
      error instanceof StartError || error instanceof ConfigError ? error.exitCode : ExitCode.Internal;
    await told({ type: 'failed', message: messageOf(error), exitCode });
    return exitCode;
  }
}

/** Limits that are set for the whole service, and counted by each worker for itself, are split between them. */
function shareOf(config: Config, slot: number): Config {
  const share = (limit: number): number => {
    const more = slot < limit % config.workers ? 1 : 0;
    return Math.floor(limit / config.workers) + more;
  };
  return {
    ...config,
    maxConnections: share(config.maxConnections),
    maxInFlight: share(config.maxInFlight),
    // The controller has the same patience, and ends a worker itself.
    startTimeoutMs: Number.POSITIVE_INFINITY,
  };
}

class Worker {
  readonly #config: Config;
  readonly #log: Logger;
  readonly #signals: SignalTrap;
  readonly #listener: HandedListener;
  readonly #lifecycle = new Lifecycle();
  readonly #backend: InProcess;
  readonly #recorder: FlightRecorder;
  readonly #questions = new Map<number, Deferred<AdminAnswer>>();
  readonly #left = deferred<ExitCode>();
  #audit: AuditLog | undefined;
  #asked = 0;
  #closing: Promise<Closed> | undefined;
  /** Set while this process ends itself, without a controller. */
  #orphanCut: CutRequest[] | undefined;

  constructor(config: Config, log: Logger, signals: SignalTrap) {
    this.#config = config;
    this.#signals = signals;
    this.#log = log;
    const host: Host = {
      log,
      lifecycle: this.#lifecycle,
      admin: { ask: (request) => this.#ask(request) },
      proxies: new TrustedProxies(config.trustedProxies),
      cut: (requests) => this.#noteCut(requests),
      auditLost: (error) => this.#auditLost(error),
      lost: () => undefined,
      changed: () => undefined,
    };
    this.#recorder = new FlightRecorder({
      fd: FLIGHT_FD,
      run: RUN,
      controller: process.ppid,
      orphanedMs: config.shutdownTimeoutMs + FLUSH_MS,
      failed: (error) => log.error({ err: error }, 'What is in flight is not recorded any more'),
    });
    const slot = Number(process.env[WORKER_VARIABLE]);
    const shares = config.workers > 1 ? new Shares(SHARES_FD, slot, config.workers) : undefined;
    this.#listener = new HandedListener(this.#lifecycle, shares, passOn);
    this.#backend = new InProcess(host, {
      app: config.app ?? {},
      config,
      listener: this.#listener,
      recorder: this.#recorder,
      signals,
    });
  }

  async run(): Promise<ExitCode> {
    process.on('message', (message: ToWorker, handle: unknown) => this.#hear(message, handle));
    process.once('disconnect', () => void this.#leaveAlone());
    const actions: SignalActions = {
      // A terminal or a service manager may signal the whole group; the controller decides for all.
      stop: () => undefined,
      force: () => undefined,
      reload: () => undefined,
      reopen: () => undefined,
      crash: (origin, error) => this.#crash(origin, error),
      stopping: () => this.#lifecycle.order !== undefined || this.#closing !== undefined,
      exit: (code) => this.#lose(code),
    };
    this.#signals.deliverTo(actions, this.#log);
    // It may have gone before anybody listened.
    if (!process.connected) void this.#leaveAlone();
    this.#audit = openAudit(this.#config, {
      log: this.#log,
      lost: (error) => this.#auditLost(error),
      joins: true,
    });
    // A stop may have been ordered before this process could hear of it.
    if (this.#lifecycle.state === 'starting') {
      const started = Promise.all([
        this.#backend.start(this.#audit),
        within(RECORDER_MS, this.#recorder.started),
      ]);
      await Promise.race([started, this.#left.promise]);
    }
    if (this.#lifecycle.state === 'starting') {
      await this.#backend.open();
      this.#lifecycle.to('running');
      tell({ type: 'ready' });
      rehearseSoon(this.#config, this.#lifecycle, this.#log);
    }
    const beat = setInterval(() => tell({ type: 'beat', status: this.#backend.status() }), BEAT_MS);
    const exitCode = await this.#left.promise;
    clearInterval(beat);
    // What is left is the application's.
    process.channel?.unref();
    await this.#signals.release();
    return exitCode;
  }

  #hear(message: ToWorker, handle: unknown): void {
    switch (message.type) {
      case 'connection':
        // Reported before a byte is read: a connection that was not taken can still go to another worker.
        tell({ type: 'taken', number: message.number });
        // It may have been closed while it was on its way.
        if (handle instanceof Socket) this.#listener.take(handle);
        return;
      case 'call':
        void this.#answer(message, handle);
        return;
      case 'stop ordered':
        this.#lifecycle.orderStop(orderOf(message.order));
        return;
      case 'reopen':
        this.#audit?.reopen();
        return;
      case 'admin answer':
        this.#questions.get(message.id)?.resolve(message.answer);
        this.#questions.delete(message.id);
    }
  }

  /** What the controller calls for, by name. */
  readonly #calls: {
    readonly [N in CallName]: (
      argument: Calls[N]['argument'],
      handle: unknown,
    ) => Promise<Calls[N]['result']>;
  } = {
    status: async () => this.#backend.status(),
    listen: (_, handle) => this.#listen(handle),
    stopAccepting: async () => {
      this.#listener.close();
      return undefined;
    },
    retire: async () => {
      await this.#backend.retire();
      return undefined;
    },
    lock: (order) => this.#lock(orderOf(order)),
    drained: async () => {
      await this.#backend.drained();
      return undefined;
    },
    cut: (reason) => this.#backend.cut(reason),
    closeQueue: async () => {
      await this.#backend.closeQueue();
      return undefined;
    },
    release: () => this.#backend.release(),
    close: (limits) => {
      this.#closing ??= this.#close(limits);
      return this.#closing;
    },
  };

  async #answer(
    { id, name, argument }: { id: number; name: CallName; argument: unknown },
    handle: unknown,
  ): Promise<void> {
    // The argument belongs to the name: both ends of the channel are one program.
    const call = this.#calls[name] as (argument: unknown, handle: unknown) => Promise<unknown>;
    const result = await call(argument, handle);
    await told({ type: 'result', id, result, status: this.#backend.status() });
    if (name === 'close') this.#left.resolve((result as Closed).exitCode);
  }

  async #listen(handle: unknown): Promise<Calls['listen']['result']> {
    try {
      return { where: await this.#listener.listen(handle) };
    } catch (error) {
      return { code: error instanceof Error && 'code' in error ? String(error.code) : messageOf(error) };
    }
  }

  #lock(order: StopOrder): Promise<OpenWork> {
    this.#lifecycle.orderStop(order);
    this.#lifecycle.lock();
    return this.#backend.lock();
  }

  async #close(limits: CloseLimits): Promise<Closed> {
    const byMs = performance.now() + limits.closeMs;
    const closed = await this.#backend.close(limits);
    this.#lifecycle.to('stopped');
    let kept = this.#audit === undefined;
    const saved = this.#audit?.close().then((whole) => {
      kept = whole;
    });
    if (saved !== undefined) await within(Math.max(byMs - performance.now(), LEAST_AUDIT_MS), saved);
    return kept ? closed : { ...closed, exitCode: ExitCode.AuditLost };
  }

  /** An administrator's request is the controller's to decide. */
  #ask(request: AdminRequest): Promise<AdminAnswer> {
    if (!process.connected) return Promise.reject(new Error('the controller is gone'));
    this.#asked += 1;
    const question = deferred<AdminAnswer>();
    this.#questions.set(this.#asked, question);
    tell({ type: 'admin', id: this.#asked, request });
    return question.promise;
  }

  #noteCut(requests: readonly CutRequest[]): void {
    if (this.#orphanCut === undefined) tell({ type: 'cut', requests });
    else {
      this.#orphanCut.push(...requests);
      logCut(this.#log, requests);
    }
  }

  /** Nothing new is let in from this turn on; the controller has the rest stopped. */
  #auditLost(error: Error): void {
    this.#lockNow('audit');
    tell({ type: 'audit lost', message: error.message });
  }

  #crash(origin: string, error: unknown): void {
    this.#log.fatal({ err: error }, `Crash (${origin}): ${messageOf(error)}`);
    if (this.#lifecycle.state === 'starting') {
      this.#left.resolve(ExitCode.Internal);
      return;
    }
    this.#lockNow('crash');
    tell({ type: 'crashed' });
  }

  #lockNow(reason: string): void {
    if (this.#lifecycle.state !== 'running') return;
    const lockAtMs = performance.now();
    const deadlineMs = lockAtMs + this.#config.shutdownTimeoutMs;
    void this.#lock({ reason, orderedAt: new Date(), lockAtMs, deadlineMs });
  }

  /** The process ends in this turn, by the application's order. The controller tells of what was in flight. */
  #lose(code: number): void {
    const { state } = this.#lifecycle;
    if (state !== 'stopped')
      this.#log.fatal(`The application has ended the process, with ${code}, while it was ${state}`);
    this.#audit?.closeNow();
  }

  /** The controller is gone: the same stop, over this one backend. */
  async #leaveAlone(): Promise<void> {
    for (const question of this.#questions.values()) question.reject(new Error('the controller is gone'));
    this.#questions.clear();
    // What the controller's last word has begun ends by itself.
    if (this.#closing !== undefined) return;
    // The address is free for the service that comes next.
    this.#listener.close();
    this.#log.error('The controller is gone: leaving as soon as what is in flight is done');
    this.#orphanCut = [];
    const never = new Promise<void>(() => undefined);
    const report: ShutdownReport = await stop(
      {
        lifecycle: this.#lifecycle,
        backend: this.#backend,
        log: this.#log,
        cut: this.#orphanCut,
        locked: () => undefined,
        closeAudit: async () => this.#audit === undefined || this.#audit.close(),
      },
      {
        reason: 'the loss of the controller',
        announcement: 'The controller is gone.',
        delayMs: 0,
        timeoutMs: this.#config.shutdownTimeoutMs,
        failSafe: this.#config.enableFailSafe,
        exitCode: () => ExitCode.Ok,
        lockNow: never,
        cutNow: never,
      },
    );
    this.#left.resolve(report.exit_code);
  }
}

function orderOf({ reason, orderedAtMs, lockInMs, deadlineInMs }: OrderMessage): StopOrder {
  const nowMs = performance.now();
  return {
    reason,
    orderedAt: new Date(orderedAtMs),
    lockAtMs: nowMs + lockInMs,
    deadlineMs: nowMs + deadlineInMs,
  };
}

/** This process keeps its copy until the other has been sent: a connection that cannot be passed on is served here. */
function passOn(socket: Socket, failed: () => void): void {
  const message: FromWorker = { type: 'passed on' };
  if (!process.connected || process.send === undefined) failed();
  else process.send(message, socket, { keepOpen: true }, (error) => (error ? failed() : socket.destroy()));
}

function tell(message: FromWorker): void {
  // The controller may be gone; that is noticed by itself.
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}

/** Resolves when the message has left this process, or cannot. */
function told(message: FromWorker): Promise<void> {
  return new Promise((resolve) => {
    if (process.connected) process.send?.(message, undefined, undefined, () => resolve());
    else resolve();
  });
}
