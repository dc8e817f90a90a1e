import { spawnSync } from 'node:child_process';
import t from 'tap';
import { ROOT } from '../support/root.ts';

const LIMIT_MS = 480_000;

interface Scene {
  readonly workers: number;
  readonly kept: { sent: number; failed: number };
  readonly fresh: { sent: number; failed: number };
  readonly refused: number;
}

// `make test` reloads under a load of a steady pace; here clients ask as fast as they are answered.
t.test('under a closed loop no reload fails a request', { timeout: LIMIT_MS }, async (t) => {
  const args = ['--import', 'tsx', 'bench/reload.ts', '--reloads', '3', '--rounds', '0'];
  const { status, stdout, stderr } = spawnSync(process.execPath, [...args, '--json'], {
    ...{ cwd: ROOT, encoding: 'utf8', timeout: LIMIT_MS },
  });
  t.equal(status, 0, stderr);
  const { scenes } = JSON.parse(stdout) as { scenes: Scene[] };
  t.strictSame(
    scenes.map(({ workers }) => workers),
    [1, 2],
  );
  for (const { kept, fresh, refused } of scenes) {
    t.equal(kept.failed + fresh.failed + refused, 0);
    t.ok(kept.sent > 0 && fresh.sent > 0);
  }
});
