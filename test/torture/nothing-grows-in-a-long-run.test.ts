import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { ROOT } from '../support/root.ts';

/** `npm run soak` is the long one. */
const MINUTES = 2;
/** Far above what the soak lasts: it also starts, restarts and verifies. */
const LIMIT_MS = 480_000;
t.setTimeout(LIMIT_MS);

t.test(
  'two minutes of orders, reloads and clients that misbehave, and six restarts',
  { timeout: LIMIT_MS },
  async (t) => {
    const args = [
      '--import',
      'tsx',
      'test/torture/soak/main.ts',
      '--minutes',
      String(MINUTES),
      '--restarts',
      '6',
    ];
    const soak = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
    t.teardown(() => soak.kill());
    const [output, [code]] = await Promise.all([text(soak.stdout), once(soak, 'close')]);
    t.comment(output);
    t.equal(code, 0, output);
    t.match(output, / 0 lost in the long life, .*; 0 differences, 0 unclean stops, verify-audit 0/);
  },
);
