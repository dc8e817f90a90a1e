import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { command } from '../support/audit.ts';
import { ServiceProcess, TEST_APP, tempDir } from '../support/service-process.ts';

/** Runs the command in a directory of its own, with these files in it. */
async function checked(
  t: Test,
  {
    args = [],
    files = {},
    env = {},
  }: { args?: string[]; files?: Record<string, string>; env?: Record<string, string> },
): Promise<{ code: number | null; lines: readonly string[]; cwd: string }> {
  const cwd = tempDir(t);
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(cwd, name, '..'), { recursive: true });
    writeFileSync(join(cwd, name), content);
  }
  const { code, lines } = await command(t, ['check', ...args], { cwd, stateDir: join(cwd, 'state'), env });
  return { code, lines, cwd };
}

t.test(
  'what can be served: exit 0, and start() was not called, nothing written and no port opened',
  async (t) => {
    const running = await ServiceProcess.running(t);
    const files = {
      'app.mjs': `import { writeFileSync } from 'node:fs';
      export default { start() { writeFileSync('started', ''); }, routes() {} };`,
      '.env': 'SHUTDOWN_TIMOUT=3\nADMIN_TOKEN_FILE=token\n',
      token: 'sixteen-letters!',
    };
    // Its port is taken by the service that runs, as usual when settings are checked before a reload.
    const env = { PORT: String(running.port), STOP_BUDGET: '10' };
    const { code, lines, cwd } = await checked(t, { args: ['app.mjs'], files, env });
    t.equal(code, 0);
    t.strictSame([...lines].sort(), [
      'OK: settings, files and the application app.mjs',
      'warning: .env:1: SHUTDOWN_TIMOUT is not a setting; did you mean SHUTDOWN_TIMEOUT?',
      'warning: STOP_BUDGET: a stop can take 35s (SHUTDOWN_DELAY + SHUTDOWN_TIMEOUT + 5s for the flush), but the platform kills after 10s',
    ]);
    t.strictSame(readdirSync(cwd).sort(), ['.env', 'app.mjs', 'token']);

    const latch = JSON.stringify({ time: 'now', by: 'somebody', reason: '' });
    const latched = await checked(t, { files: { 'emergency.json': latch }, env: { STATE_DIR: '.' } });
    t.match(latched, {
      code: 0,
      lines: [/^warning: \. is latched by an emergency shutdown: .* 75 .* unlatch /],
    });

    const bare = await checked(t, {});
    t.strictSame(
      { ...bare, cwd: '' },
      { code: 0, lines: ['OK: settings, files and no application'], cwd: '' },
    );
  },
);

t.test('what cannot: exit 78, and each mistake has its line', async (t) => {
  const settings = await checked(t, { env: { PORT: '9000', OPS_PORT: '9000', SHUTDOWN_TIMEOUT: '10s' } });
  t.strictSame(
    { ...settings, cwd: '' },
    {
      code: 78,
      cwd: '',
      lines: [
        'master-agent: SHUTDOWN_TIMEOUT: want a number of seconds >= 0, at most 86400, got "10s"',
        'master-agent: OPS_PORT: want another port than PORT, got 9000 for both',
      ],
    },
  );
  const env = {
    ...{
      ADMIN_TOKEN_FILE: 'none',
      AUDIT_KEY_FILE: 'short',
      STATE_DIR: 'short/below',
      AUDIT_LOG: 'no/such/log',
    },
    ...{ PID_FILE: 'neither/pid', APP: 'none.mjs' },
  };
  const files = await checked(t, { files: { short: '' }, env });
  t.equal(files.code, 78);
  t.match(files.lines, [
    /^master-agent: ADMIN_TOKEN_FILE: want a file that can be read, got "none": ENOENT/,
    /^master-agent: AUDIT_KEY_FILE: want 16 or more bytes in "short", got 0$/,
    /^master-agent: STATE_DIR: want a directory that can be written, got "short": it is a file$/,
    /^master-agent: AUDIT_LOG: want a directory that can be written, got "no\/such": ENOENT/,
    /^master-agent: PID_FILE: want a directory that can be written, got "neither": ENOENT/,
    /^master-agent: APP: want the path of an ES module, got "none.mjs" \(no such file\)$/,
  ]);
  t.equal(files.lines.length, 6);
});

t.test(
  'an application that cannot be imported, has another shape or never ends its import: exit 78',
  async (t) => {
    for (const [source, told] of [
      [
        'export default 7;',
        'to export an app { start, routes, locked, drained, stop } by default, got number',
      ],
      ['throw new Error("no database");', 'app.mjs failed when it was imported: no database'],
      ['process.exit(0);', 'app.mjs ended the process when it was imported'],
      ['setInterval(() => {}, 1000); await new Promise(() => {});', 'app.mjs was not imported after 0.5s'],
    ] as const) {
      const { code, lines } = await checked(t, {
        args: ['app.mjs'],
        files: { 'app.mjs': source },
        env: { START_TIMEOUT: '0.5' },
      });
      t.equal(code, 78);
      t.equal(lines.length, 1);
      t.match(lines[0], told);
    }
    t.match(await command(t, ['check', TEST_APP, 'more.mjs']), {
      code: 78,
      lines: [/^master-agent: want one APP, got .*more\.mjs/],
    });
    const help = await command(t, ['check', '--help']);
    t.equal(help.code, 0);
    t.match(help.lines[0], 'usage: master-agent check [APP]');
  },
);
