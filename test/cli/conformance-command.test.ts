import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { conformance } from '../conformance/command.ts';
import { ROOT } from '../support/root.ts';

const NAIVE = `"${process.execPath}" "${join(ROOT, 'test/conformance/naive.mjs')}" exits`;

interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function told(...args: readonly string[]): Promise<Result> {
  let [stdout, stderr] = ['', ''];
  const code = await conformance(args, {
    out: (text) => {
      stdout += text;
    },
    err: (text) => {
      stderr += text;
    },
  });
  return { code, stdout, stderr };
}

async function assertCannotRun(t: Test, args: readonly string[], message: string | RegExp): Promise<void> {
  const { code, stdout, stderr } = await told(...args);
  t.equal(code, 2);
  t.equal(stdout, '');
  t.match(stderr, message);
  t.equal(stderr.trimEnd().split('\n').length, 1, 'one line');
}

t.test('bad input is one clear line, and exit code 2', async (t) => {
  await assertCannotRun(t, [], '--cmd: want the command that starts the server, got none');
  await assertCannotRun(
    t,
    ['--cmd', NAIVE, '--runs', 'many'],
    '--runs: want a whole number from 1 to 1000, got "many"',
  );
  await assertCannotRun(
    t,
    ['--cmd', NAIVE, '--jobs', '0'],
    '--jobs: want a whole number from 1 to 16, got "0"',
  );
  await assertCannotRun(
    t,
    ['--cmd', NAIVE, '--only', 'lock,nothing'],
    '--only: want names that --list shows, got "nothing"',
  );
  await assertCannotRun(t, ['--comand', NAIVE], /Unknown option '--comand'/);
  await assertCannotRun(
    t,
    ['--cmd', 'no-such-program'],
    /ended with 127 before it listened on PORT; it printed: .*no-such-program/,
  );
});

t.test('the list and the help', async (t) => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [join(ROOT, 'dist/main.js'), 'conformance', ...args], {
      ...{ cwd: ROOT, encoding: 'utf8' },
    });
  t.match(run('--list', '--only', 'leave-idle'), {
    status: 0,
    stdout: /^leave {5}leave-idle {2}exits at once\n$/,
    stderr: '',
  });
  t.match(run('--only', 'nothing'), { status: 2, stdout: '', stderr: 'got "nothing"' });
  t.match((await told('--help')).stdout, '--cmd COMMAND');
});

t.test('the result is an exit code, lines for people, and JSON', async (t) => {
  const passed = await told('--cmd', NAIVE, '--only', 'leave-idle', '--runs', '2');
  t.equal(passed.code, 0);
  t.match(passed.stdout, /^pass {2}leave {5}leave-idle {2}exit 0 after \d+ ms \(2 of 2 runs\)$/m);
  t.match(passed.stdout, '1 of 1 pass');
  t.match(passed.stderr, '[1/1] pass leave-idle');

  const failed = await told('--cmd', NAIVE, '--only', 'new-connection', '--json');
  t.equal(failed.code, 1);
  t.match(JSON.parse(failed.stdout), {
    passed: 0,
    total: 1,
    scenarios: [{ name: 'new-connection', promise: 'lock', pass: false, outcome: 'connection refused' }],
  });
});
