import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { pino } from 'pino';
import t, { type Test } from 'tap';
import { assertAppFile } from '../../src/app/app.ts';
import { InProcess } from '../../src/backends/in-process/in-process.ts';
import { completeConfig } from '../../src/config/settings.ts';
import { Controller } from '../../src/control/controller.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

interface Failure {
  readonly name?: string;
  readonly exitCode?: number;
  readonly message?: string;
}

/** Starts a service with the application at `path`, and gives what its start failed with. */
async function failureOf(t: Test, path: string): Promise<Failure> {
  const stateDir = tempDir(t);
  const config = completeConfig({ host: '127.0.0.1', port: 0, opsPort: 0, stateDir, auditLog: 'off' });
  let backend: InProcess | undefined;
  const controller = new Controller({
    config,
    log: pino({ level: 'silent' }),
    backend: (host) => {
      backend = new InProcess(host, { app: path, config });
      return backend;
    },
    configure: () => ({ config, variables: {} }),
  });
  t.teardown(() => controller.force('the end of the test'));
  try {
    assertAppFile(path);
    await controller.start();
  } catch (error) {
    t.equal(backend?.server.listening, false, 'nothing listens');
    t.equal(controller.opsAddress, null, 'nor the ops server');
    t.notOk(existsSync(join(stateDir, 'running.json')), 'and no run is under way');
    return error as Failure;
  }
  t.fail(`${path} was taken`);
  return {};
}

/** Writes a module and gives its path. */
function moduleIn(dir: string, name: string, source: string): string {
  const path = join(dir, name);
  writeFileSync(path, source);
  return path;
}

t.test('a module that is not there is bad configuration', async (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'folder'));
  for (const path of [join(dir, 'none.mjs'), join(dir, 'folder'), 'no/such/app.mjs']) {
    t.match(await failureOf(t, path), {
      name: 'StartError',
      exitCode: 78,
      message: `APP: want the path of an ES module, got "${path}" (no such file)`,
    });
  }
});

t.test('a module that cannot be imported is an internal error, told on one line', async (t) => {
  const dir = tempDir(t);
  for (const [source, message] of [
    [`throw new Error('thrown on\\nimport');`, /thrown on import$/],
    ['throw "a string";', /a string$/],
    [`import 'no-such-package-anywhere'; export default {};`, /no-such-package-anywhere/],
    ['export default { routes( };', /.+/],
  ] as const) {
    const path = moduleIn(dir, `${Math.random()}.mjs`, source);
    const failure = await failureOf(t, path);
    t.match(failure, { name: 'StartError', exitCode: 70, message });
    t.ok(failure.message?.startsWith(`APP: ${path} failed when it was imported: `));
    t.notMatch(failure.message, '\n');
  }
});

t.test('a syntax error is told with its file and line, and no file is run for it', async (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'lib'));
  const ran = join(dir, 'ran');
  const good = `import { writeFileSync } from 'node:fs'; writeFileSync(${JSON.stringify(ran)}, '');\nexport const a = 1;`;
  moduleIn(dir, 'lib/good.mjs', good);
  moduleIn(dir, 'lib/deep.mjs', `import './good.mjs';\nimport '../app.mjs';\nexport const b = {;`);
  moduleIn(dir, 'lib/between.mjs', `export * from './deep.mjs';`);
  for (const [source, place] of [
    [
      `import './lib/good.mjs';\nimport { b } from './lib/between.mjs';\nexport default { routes() {} };`,
      'lib/deep.mjs:3',
    ],
    [`import './lib/good.mjs';\n\nexport default { routes( };`, 'app.mjs:3'],
    [`import { none } from './lib/good.mjs';`, 'app.mjs:1'],
  ] as const) {
    const path = moduleIn(dir, 'app.mjs', source);
    const { exited, lines } = ServiceProcess.spawn(t, { args: [path], env: { AUDIT_LOG: 'off' } });
    t.strictSame(await exited, { code: 70, signal: null });
    const told = lines.find((line) => line.startsWith('FATAL: ')) ?? '';
    t.match(told, /failed when it was imported: .*\(file:/);
    t.ok(told.endsWith(`/${place})`), told);
  }
  t.notOk(existsSync(ran));
  const own = moduleIn(dir, 'own.mjs', `throw new SyntaxError('of its own');`);
  t.match(await failureOf(t, own), { message: /imported: of its own$/ });
});

t.test('a module of another shape is bad configuration, and told what it is', async (t) => {
  const dir = tempDir(t);
  for (const [source, got] of [
    ['export const app = {};', ', got undefined'],
    ['export default null;', ', got null'],
    ['export default () => {};', ', got function'],
    ['export default {};', ', got none of them'],
    ['export default { route() {} };', ', got none of them'],
    ['export default { routes: [] };', ' of functions, got object for routes'],
    ['export default { start: 5, routes() {} };', ' of functions, got number for start'],
    ['export default { stop: null };', ' of functions, got object for stop'],
  ] as const) {
    const path = moduleIn(dir, `${Math.random()}.mjs`, source);
    t.match(await failureOf(t, path), {
      name: 'StartError',
      exitCode: 78,
      message: `APP: want ${path} to export an app { start, routes, locked, drained, stop } by default${got}`,
    });
  }
});

t.test('a start() or routes() that fails is an internal error, told on one line', async (t) => {
  const dir = tempDir(t);
  for (const [source, failed] of [
    [`{ async start() { throw new Error('no\\n  database'); } }`, 'start() of PATH failed: no database'],
    ['{ start() { throw undefined; } }', 'start() of PATH failed: undefined'],
    [
      `{ routes(router) { router.get('/a', () => {}); router.get('/a', () => {}); } }`,
      'routes() of PATH failed: router: GET /a is taken by /a',
    ],
    [
      `{ routes(router) { router.get('/health', () => {}); } }`,
      'routes() of PATH failed: router: GET /health is taken by /health',
    ],
    [
      `{ routes(router) { router.mount('/a', {}); } }`,
      'routes() of PATH failed: router: want a function for mount /a, got object',
    ],
  ] as const) {
    const path = moduleIn(dir, `${Math.random()}.mjs`, `export default ${source};`);
    t.match(await failureOf(t, path), {
      name: 'StartError',
      exitCode: 70,
      message: `APP: ${failed.replace('PATH', path)}`,
    });
  }
});

t.test('the process ends with the code and one fatal line, and the cause behind it', async (t) => {
  const dir = tempDir(t);
  const broken = moduleIn(
    dir,
    'broken.mjs',
    `export default { start() { throw new Error('no database'); } };`,
  );
  const misshapen = moduleIn(dir, 'misshapen.mjs', 'export default 5;');
  const [one, two] = [broken, misshapen].map((path) =>
    ServiceProcess.spawn(t, { args: [path], env: { AUDIT_LOG: 'off' } }),
  );
  t.strictSame(await one?.exited, { code: 70, signal: null });
  t.strictSame(await two?.exited, { code: 78, signal: null });
  const fatal = (service?: ServiceProcess): string[] | undefined =>
    service?.lines.filter((line) => line.startsWith('FATAL: '));
  t.strictSame(fatal(one), [`FATAL: APP: start() of ${broken} failed: no database`]);
  t.match(one?.output, /^ERROR: The cause\nError: no database\n {4}at .*broken\.mjs/m);
  t.strictSame(fatal(two), [
    `FATAL: APP: want ${misshapen} to export an app { start, routes, locked, drained, stop } by default, got number`,
  ]);
  t.notMatch(two?.output, ' at ', 'no stack: what is wrong is said');
  for (const service of [one, two]) t.strictSame(readdirSync(service?.stateDir ?? ''), ['lock']);
});

t.test('a path is relative to the working directory, and the first argument goes before APP', async (t) => {
  const cwd = tempDir(t);
  moduleIn(cwd, 'argument.mjs', `export default { start: ({ log }) => log.info('from the argument') };`);
  const service = await ServiceProcess.running(t, {
    cwd,
    args: ['serve', 'argument.mjs'],
    env: { APP: relative(cwd, '/no/such/app.mjs') },
  });
  t.ok(service.lines.includes('INFO: from the argument'));
  t.ok(service.lines.includes('INFO: Application started: argument.mjs'));
});

t.test('a start that does not end is given up after START_TIMEOUT', async (t) => {
  const dir = tempDir(t);
  // Nothing but the service's own patience keeps these processes alive.
  for (const [name, source] of [
    ['start.mjs', 'export default { start: () => new Promise(() => undefined) };'],
    ['import.mjs', 'await new Promise(() => undefined);'],
  ] as const) {
    const service = ServiceProcess.spawn(t, {
      args: [moduleIn(dir, name, source)],
      env: { START_TIMEOUT: '0.2', OPS_PORT: 'off' },
    });
    t.strictSame(await service.exited, { code: 70, signal: null });
    t.match(service.output, 'FATAL: APP: the application had not started after 0.2s (START_TIMEOUT)');
  }
});
