/** All benches, one after the other, shorter than each by itself. `--full` gives each its own length. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { full: { type: 'boolean', default: false } } });

const BENCHES: readonly (readonly [file: string, short: readonly string[]])[] = [
  ['hot-path.ts', ['--batches', '100']],
  ['without-kernel.ts', ['--rounds', '2']],
  ['throughput.ts', ['--rounds', '10']],
  ['shutdown.ts', ['--runs', '3']],
  ['audit.ts', ['--rounds', '8']],
  ['reload.ts', ['--rounds', '4']],
  ['restart.ts', []],
  ['reconcile.ts', []],
  ['scale.ts', ['--rounds', '2']],
  ['start-up.ts', ['--rounds', '5']],
  ['fresh-connections.ts', ['--rounds', '4', '--requests', '500']],
  ['overload.ts', ['--seconds', '2']],
  ['timeline.ts', []],
  ['page.ts', ['--pairs', '8']],
];

let failed = false;
for (const [file, short] of BENCHES) {
  const path = fileURLToPath(new URL(file, import.meta.url));
  const args = [...process.execArgv, path, ...(values.full ? [] : short)];
  const { status } = spawnSync(process.execPath, args, { stdio: 'inherit' });
  if (status !== 0) failed = true;
}
process.exit(failed ? 1 : 0);
