import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ROOT } from '../support/root.ts';
import { tempDir } from '../support/service-process.ts';

const LIMIT_MS = 600_000;
t.setTimeout(LIMIT_MS);

/** What git has of a checkout, and the package is made of. */
const SOURCES = [
  ...['package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json', '.env.example'],
  ...['src', 'test/conformance', 'test/support', 'docs', 'examples', 'deployment'],
  ...['README.md', 'CHANGELOG.md', 'SECURITY.md', 'LICENSE'],
];

interface Locked {
  readonly version?: string;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
}

function run(t: Test, cwd: string, command: string, ...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  t.equal(status, 0, `${command} ${args.join(' ')}\n${stderr}`);
  return stdout;
}

/** A checkout as `git clone` and `npm ci --ignore-scripts` make it: nothing is built. */
function freshClone(dir: string): string {
  const clone = join(dir, 'clone');
  mkdirSync(clone);
  for (const name of SOURCES) {
    if (existsSync(join(ROOT, name))) cpSync(join(ROOT, name), join(clone, name), { recursive: true });
  }
  symlinkSync(join(ROOT, 'node_modules'), join(clone, 'node_modules'));
  return clone;
}

/** A project that depends on the tarball. Its lock has our versions, so that npm needs nothing but its cache. */
function project(dir: string, tarball: string): string {
  const mine = join(dir, 'mine');
  mkdirSync(mine);
  const lock: { packages: Record<string, Locked> } = JSON.parse(
    readFileSync(join(ROOT, 'package-lock.json'), 'utf8'),
  );
  const { '': own, ...others } = lock.packages;
  const needed = Object.entries(others).filter(([, { dev, devOptional }]) => !dev && !devOptional);
  const manifest = { name: 'mine', type: 'module', dependencies: { 'master-agent': `file:../${tarball}` } };
  const packages = {
    '': manifest,
    'node_modules/master-agent': { ...own, resolved: `file:../${tarball}` },
    ...Object.fromEntries(needed),
  };
  writeFileSync(join(mine, 'package.json'), JSON.stringify(manifest));
  writeFileSync(
    join(mine, 'package-lock.json'),
    JSON.stringify({ name: 'mine', lockfileVersion: 3, packages }),
  );
  return mine;
}

t.test('npm pack in a fresh clone makes a package that installs and runs', async (t) => {
  t.setTimeout(LIMIT_MS);
  const dir = tempDir(t);
  const clone = freshClone(dir);
  const [packed] = JSON.parse(run(t, clone, 'npm', 'pack', '--json', '--pack-destination', dir));
  const paths: readonly string[] = packed.files.map(({ path }: { path: string }) => path);
  for (const path of ['dist/main.js', 'dist/index.d.ts', 'dist/ops/page/page.html', 'README.md', 'LICENSE'])
    t.ok(paths.includes(path), path);
  t.strictSame(
    paths.filter((path) => /^(src|test|bench|node_modules)\//.test(path)),
    [],
    'and nothing that is not needed',
  );

  const mine = project(dir, packed.filename);
  run(t, mine, 'npm', 'install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund');
  t.equal(run(t, mine, 'npx', 'master-agent', '--version'), `${packed.version}\n`);
  const own = [join(mine, 'node_modules/.bin/master-agent'), '--version'] as const;
  t.equal(run(t, '/', ...own), `${packed.version}\n`, 'from any directory');

  const listed = run(t, '/', own[0], 'conformance', '--list', '--only', 'leave-idle');
  t.match(listed, 'exits at once', 'the conformance suite comes with it');

  writeFileSync(
    join(mine, 'embed.mjs'),
    `import { createService } from 'master-agent';
    const service = createService({ config: { port: 0, opsPort: 0, logLevel: 'error', stateDir: 'state' } });
    await service.start();
    const { status } = await fetch('http://127.0.0.1:' + service.address.port + '/health');
    const { exit_code } = await service.stop();
    console.log(status, exit_code);`,
  );
  t.equal(run(t, mine, process.execPath, 'embed.mjs'), '200 0\n', 'the import');
});
