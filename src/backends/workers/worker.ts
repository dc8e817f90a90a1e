import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import { type Config, ConfigError, parseConfig } from '../../config/settings.ts';
import { messageOf } from '../../error.ts';
import { ExitCode, StartError } from '../../exit-code.ts';
import { createLogger } from '../../platform/logger.ts';
import type { SignalTrap } from '../../platform/signals.ts';
import type { Connections } from '../../server/connections.ts';
import type { Gate } from '../../server/gate.ts';
import type { Listener } from '../in-process/listener.ts';
import { Service } from '../in-process/service.ts';
import { FlightRecorder } from './flight-recorder.ts';
import { BEAT_MS, type FromWorker, RECORDER_FD, type ToWorker } from './messages.ts';

/** One service under a supervisor: it decides nothing about its own life but to lock itself when something is lost. */
export async function work(signals: SignalTrap): Promise<ExitCode> {
  try {
    const config = shareOf(parseConfig(process.env));
    const log = createLogger({ level: config.logLevel, format: config.logFormat ?? 'json' });
    const listener = new HandedListener();
    const service = new Service(config.app ?? {}, config, log, {
      listener,
      recorder: new FlightRecorder(RECORDER_FD, process.ppid, (error) =>
        log.error({ err: error }, 'What is in flight is not recorded any more'),
      ),
      locked: (inFlight, exitCode) => tell({ type: 'locked', inFlight, exitCode }),
      drained: (cut, forced) => tell({ type: 'drained', cut, forced }),
      emergency: (reason, by) => tell({ type: 'emergency', reason, by }),
    });
    obey(service, listener, log);
    signals.deliverTo({
      // A terminal or a service manager may signal the whole group; the supervisor decides for all.
      stop: () => undefined,
      force: () => undefined,
      reload: () => undefined,
      crash: (origin, error) => void service.crash(origin, error),
      exit: (code) => service.lose(code),
    });
    await service.start();
    const beat = setInterval(() => tell({ type: 'beat', snapshot: service.metrics() }), BEAT_MS);
    const report = await service.stopped;
    clearInterval(beat);
    await told({ type: 'stopped', report, snapshot: service.metrics() });
    return report.exit_code;
  } catch (error) {
    const exitCode =
      error instanceof StartError || error instanceof ConfigError ? error.exitCode : ExitCode.Internal;
    await told({ type: 'failed', message: messageOf(error), exitCode });
    return exitCode;
  }
}

/** What is set for the whole service, and counted by each worker for itself, is split between them. */
function shareOf(config: Config): Config {
  return { ...config, maxConnections: Math.ceil(config.maxConnections / config.workers) };
}

/** The chain from what the supervisor says to what it does. */
function obey(service: Service, listener: HandedListener, log: Logger): void {
  process.on('message', (message: ToWorker, socket: Socket | undefined) => {
    switch (message.type) {
      case 'connection':
        // Told before a byte is read: what was not taken can still be given to somebody else.
        tell({ type: 'taken', number: message.number });
        // It may have been closed while it was on its way.
        if (socket !== undefined) listener.take(socket);
        return;
      case 'stop':
        void service.stop(message.reason, message.delayMs);
        return;
      case 'lock':
        service.lockNow();
        return;
      case 'cut':
        void service.force('the supervisor');
        return;
      case 'retire':
        void service.retire(message.lingerMs);
        return;
      case 'hold':
        listener.hold();
        return;
      case 'leave':
        listener.leave();
        return;
      case 'reopen':
        service.reopen();
        return;
      case 'ask':
        tell({ type: 'beat', snapshot: service.metrics() });
    }
  });
  const orphaned = (): void => {
    log.error('The supervisor is gone: leaving as soon as what is in flight is done');
    listener.leave();
    void service.stop('the loss of the supervisor', 0);
  };
  process.once('disconnect', orphaned);
  // It may have gone before anybody listened.
  if (!process.connected) orphaned();
}

/** Connections that a supervisor has accepted. */
class HandedListener implements Listener {
  readonly where = "the supervisor's address";
  #server: Server | undefined;
  #open = 0;
  #closed = false;
  #hold: () => void = () => undefined;
  #leave: () => void = () => undefined;
  readonly #left = new Promise<void>((resolve) => {
    this.#leave = resolve;
  });

  get accepting(): boolean {
    return this.#server !== undefined && !this.#closed;
  }

  async open(server: Server): Promise<void> {
    this.#server = server;
    // node:http arms the timer behind its time limits when it begins to listen, and this server never will.
    server.emit('listening');
    tell({ type: 'ready' });
  }

  take(socket: Socket): void {
    const limit = this.#server?.maxConnections ?? 0;
    if (this.#server === undefined || (limit > 0 && this.#open >= limit)) {
      socket.destroy();
      this.#server?.emit('drop');
      return;
    }
    this.#open += 1;
    socket.once('close', () => {
      this.#open -= 1;
    });
    // What node:http asks of its own listening socket: a client that has said all it has to say still gets its answer.
    socket.allowHalfOpen = true;
    this.#server.emit('connection', socket);
    socket.resume();
  }

  close(): void {
    this.#closed = true;
  }

  /** Who retires, or has lost its supervisor, gets no more connections: nobody has to be waited for. */
  async lastCall(gate: Gate, _connections: Connections): Promise<void> {
    if (this.#closed || !process.connected) return;
    this.#hold = () => gate.hold();
    await this.#left;
    this.close();
    gate.release();
  }

  hold(): void {
    this.#hold();
  }

  leave(): void {
    this.#leave();
  }
}

function tell(message: FromWorker): void {
  // The supervisor may be gone; that is noticed by itself.
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}

/** Resolves when the message has left this process, or cannot. */
function told(message: FromWorker): Promise<void> {
  return new Promise((resolve) => {
    if (process.connected) process.send?.(message, undefined, undefined, () => resolve());
    else resolve();
  });
}
