import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { command } from '../support/audit.ts';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const TOKEN = 'a-token-of-an-operator';
const UNLATCH = 'To start again: master-agent unlatch --reason "why it may start again"';

t.test('emergency latches and stops the service, with either token and workers too', async (t) => {
  const tokenFile = join(tempDir(t), 'token');
  writeFileSync(tokenFile, `${TOKEN}\n`);
  for (const env of [{ ADMIN_TOKEN: TOKEN }, { ADMIN_TOKEN_FILE: tokenFile, WORKERS: '1' }]) {
    const service = await ServiceProcess.running(t, { env });
    const { stateDir } = service;
    // A mistake in the settings does not keep it from being stopped.
    const commandEnv = { ...env, SHUTDOWN_TIMEOUT: 'soon' };
    const told = await command(t, ['emergency', '--reason', 'smoke'], { stateDir, env: commandEnv });
    t.strictSame(told, { code: 0, lines: [`Emergency shutdown begun, and latched. ${UNLATCH}`] });
    t.strictSame(await service.exited, { code: 0, signal: null });
    t.match(JSON.parse(readFileSync(join(stateDir, 'emergency.json'), 'utf8')), { reason: 'smoke' });
    await service.line(
      'WARNING: Latched: the service will not start before: master-agent unlatch --reason "',
    );
    const again = ServiceProcess.spawn(t, { stateDir });
    t.strictSame(await again.exited, { code: 75, signal: null });
    t.match(again.lines.at(-1), UNLATCH);
  }
});

t.test('what is refused, or cannot be asked, fails and says why; the service goes on', async (t) => {
  const service = await ServiceProcess.running(t, { env: { ADMIN_TOKEN: TOKEN } });
  const { stateDir } = service;
  const ask = (env: Record<string, string>): ReturnType<typeof command> =>
    command(t, ['emergency'], { stateDir, env });
  t.match(await ask({ ADMIN_TOKEN: 'another-token-entirely' }), {
    code: 1,
    lines: [/^Refused by the ops server at http:\S+: The token is wrong\.$/],
  });
  t.match(await ask({}), { code: 78, lines: [/there is no token to send/] });
  t.match(await ask({ ADMIN_TOKEN_FILE: '/no/such/file' }), {
    code: 78,
    lines: [/^master-agent: ADMIN_TOKEN_FILE: want/],
  });
  t.equal((await service.operator('/readyz')).status, 200);
  t.notOk(existsSync(join(stateDir, 'emergency.json')));
  service.signal('SIGTERM');
  await service.exited;
  t.match(await command(t, ['emergency'], { stateDir, env: { ADMIN_TOKEN: TOKEN, OPS_PORT: '3' } }), {
    code: 1,
    lines: [/^No answer from the ops server at http:\/\/127\.0\.0\.1:3: connect ECONNREFUSED/],
  });
  t.match(await command(t, ['emergency'], { stateDir, env: { ADMIN_TOKEN: TOKEN, OPS_PORT: 'off' } }), {
    code: 78,
    lines: [/^master-agent: OPS_PORT is off: there is no ops server to ask/],
  });
  const help = await command(t, ['emergency', '--help']);
  t.match(help, { code: 0, lines: ['usage: master-agent emergency [--reason TEXT]'] });
});
