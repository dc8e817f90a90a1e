/**
 * `node --import master-agent/register server.js`: every HTTP server of the process that listens becomes fail-safe. A
 * process that never listens is left alone: nothing slow is loaded and no signal is trapped before its first server.
 */
import type { Cluster } from 'node:cluster';
import { subscribe } from 'node:diagnostics_channel';
import type { Server } from 'node:http';
import { join } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { environmentDoubts, readEnvironment } from './config/environment.ts';
import { type Config, formatOf, parseConfig, SETTINGS } from './config/settings.ts';
import { OWN_SERVERS } from './platform/own-servers.ts';
import { SignalTrap } from './platform/signals.ts';
import { holdConnections } from './server/hold-connections.ts';

/** Settings of a server of ours. What the application means by these names is its own business. */
const NOT_OURS: readonly (keyof Config)[] = [
  ...([
    'host',
    'port',
    'app',
    'workers',
    'keepAliveTimeoutMs',
    'requestTimeoutMs',
    'headersTimeoutMs',
  ] as const),
  ...(['maxConnections', 'maxRequestsPerSocket', 'maxHeaderBytes', 'pidFile'] as const),
];

if (isMainThread) {
  // Before the application takes its own copy of process.exit.
  const signals = new SignalTrap('transparent');
  subscribe('tracing:net.server.listen:asyncEnd', (message) => {
    const { server } = message as { server: Server };
    if (isHttp(server) && !OWN_SERVERS.has(server)) void gate(server, signals);
  });
}

function isHttp(server: Server): boolean {
  // What the application has not loaded itself would delay its start.
  const { Server: Http } = process.getBuiltinModule('node:http');
  const isTls = 'setSecureContext' in server;
  return server instanceof (isTls ? process.getBuiltinModule('node:https').Server : Http);
}

/** Calls nothing slow before connections are held and signals trapped, in the turn of the loop of the first listen. */
async function gate(server: Server, signals: SignalTrap): Promise<void> {
  const release = holdConnections(server);
  try {
    const config = configure();
    const address = server.address();
    if (config.ungatedPorts?.split(',').includes(String(typeof address === 'object' && address?.port))) {
      release();
      return;
    }
    signals.trap();
    const { adopt, Service } = await import('./service.ts');
    const { AdoptedServers } = await import('./backends/in-process/adopted-servers.ts');
    const { createNotifier } = await import('./platform/systemd.ts');
    // systemd listens to the main process alone.
    const notifier = await createNotifier(cluster().isWorker ? {} : process.env);
    const make = () => {
      const doubts = environmentDoubts();
      return new Service({ config, signals, servers: new AdoptedServers(), configure, notifier, doubts });
    };
    release(() => adopt(server, make));
  } catch (error) {
    const { explain } = await import('./cli/explain.ts');
    const { endProcess } = await import('./platform/end-process.ts');
    await endProcess(explain(error));
  }
}

/** @throws ConfigError */
function configure(): Config {
  const variables: Record<string, string | undefined> = { ...readEnvironment() };
  for (const { key, name } of SETTINGS) if (NOT_OURS.includes(key)) delete variables[name];
  const { isWorker, worker } = cluster();
  if (isWorker) {
    // Each is a service of its own.
    variables.STATE_DIR = join(variables.STATE_DIR || 'var', `worker-${worker?.id}`);
    variables.OPS_PORT ||= 'off';
  }
  const config = parseConfig({ ...variables, PORT: '0' });
  return { ...config, logFormat: formatOf(config.logFormat) };
}

function cluster(): Cluster {
  return process.getBuiltinModule('node:cluster') as unknown as Cluster;
}
