import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const PEERS = fileURLToPath(new URL('.', import.meta.url));
const ROOT = join(PEERS, '../..');

/** A server to judge, or why it cannot be. */
export interface Peer {
  /** For --servers. */
  readonly id: string;
  readonly name: string;
  readonly version: string;
  /** Starts it with the routes of the conformance suite, on `PORT`. */
  readonly command?: string;
}

/**
 * Our own service and what else there is, each used as its documentation advises. Installs the libraries where that
 * is to be done yet.
 * @param scratch a directory for what has to be compiled
 */
export function findPeers(scratch: string): Peer[] {
  install();
  return [
    ours(0),
    ours(1),
    library('node-http-close.mjs'),
    library('stoppable.mjs', 'stoppable'),
    library('http-terminator.mjs', 'http-terminator'),
    library('http-graceful-shutdown.mjs', 'http-graceful-shutdown'),
    library('terminus.mjs', '@godaddy/terminus'),
    library('lightship.mjs', 'lightship'),
    library('fastify.mjs', 'fastify', 'close-with-grace'),
    findGo(scratch),
    findFastApi(),
  ];
}

/** Installs the libraries, unless what is there is what the lock file says. */
function install(): void {
  const installed = statSync(join(PEERS, 'node_modules/.package-lock.json'), { throwIfNoEntry: false });
  if (installed !== undefined && installed.mtimeMs >= statSync(join(PEERS, 'package-lock.json')).mtimeMs)
    return;
  execFileSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: PEERS, stdio: ['ignore', 2, 2] });
}

function ours(workers: number): Peer {
  const app = join(ROOT, 'test/conformance/app.mjs');
  const settings = 'HOST=127.0.0.1 OPS_PORT=off LOG_LEVEL=fatal STATE_DIR=$SCRATCH';
  return {
    id: workers === 0 ? 'ours' : 'ours-with-workers',
    name: `master-agent, WORKERS=${workers}`,
    version: `master-agent ${versionIn(join(ROOT, 'package.json'))}`,
    command: `${settings} WORKERS=${workers} node "${join(ROOT, 'dist/main.js')}" "${app}"`,
  };
}

function library(file: string, ...names: readonly string[]): Peer {
  return {
    id: file.replace('.mjs', ''),
    name: names.join(' + ') || 'node:http, server.close',
    version:
      names
        .map((name) => `${name} ${versionIn(join(PEERS, 'node_modules', name, 'package.json'))}`)
        .join(', ') || `Node ${process.version}`,
    command: `node "${join(PEERS, file)}"`,
  };
}

function findGo(scratch: string): Peer {
  const [id, name] = ['go', 'Go net/http'];
  const version = spawnSync('go', ['version'], { encoding: 'utf8' });
  if (version.status !== 0) return { id, name, version: 'skipped: no `go` on the PATH' };
  const program = join(scratch, 'go-http');
  const built = spawnSync('go', ['build', '-o', program, join(PEERS, 'go-http.go')], { encoding: 'utf8' });
  if (built.status !== 0) return { id, name, version: 'skipped: `go build` failed' };
  return { id, name, version: version.stdout.replace('go version ', '').trim(), command: `"${program}"` };
}

function findFastApi(): Peer {
  const [id, name] = ['fastapi', 'uvicorn + FastAPI'];
  const script =
    'import uvicorn, fastapi; print(f"uvicorn {uvicorn.__version__}, FastAPI {fastapi.__version__}")';
  const version = spawnSync('python3', ['-c', script], { encoding: 'utf8' });
  if (version.status !== 0) return { id, name, version: 'skipped: `python3` has no uvicorn and FastAPI' };
  return { id, name, version: version.stdout.trim(), command: `python3 "${join(PEERS, 'fastapi_app.py')}"` };
}

function versionIn(file: string): string {
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
