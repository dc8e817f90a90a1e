import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** `npm run soak` is the long one. */
const MINUTES = 2;
const LIMIT_MS = 300_000;

t.test('two minutes of load, reloads and clients that misbehave', { timeout: LIMIT_MS }, async (t) => {
  const args = ['--import', 'tsx', 'test/soak/main.ts', '--minutes', String(MINUTES)];
  const soak = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => soak.kill());
  const [output, [code]] = await Promise.all([text(soak.stdout), once(soak, 'close')]);
  t.comment(output);
  t.equal(code, 0, output);
  t.match(output, /\d+ requests, 0 lost, [1-9] reloads, exit 0 and 0, verify-audit 0/);
});
