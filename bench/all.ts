/**
 * All benches, one after the other, shorter than each by itself, and their tables into RESULTS.md. `--full` gives each
 * its own length.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { writeResults } from './results.ts';

const { values } = parseArgs({ options: { full: { type: 'boolean', default: false } } });

const BENCHES: readonly (readonly [file: string, short: readonly string[]])[] = [
  ['hot-path.ts', ['--batches', '100']],
  ['without-kernel.ts', ['--rounds', '2']],
  ['throughput.ts', ['--rounds', '12', '--picture']],
  ['shutdown.ts', ['--runs', '3']],
  ['streams.ts', ['--each', '1000']],
  ['drain-trace.ts', ['--rounds', '2']],
  ['audit.ts', ['--rounds', '8']],
  ['reload.ts', ['--rounds', '4']],
  ['restart.ts', []],
  ['reconcile.ts', []],
  ['postgres.ts', ['--rounds', '4']],
  ['scale.ts', ['--rounds', '2']],
  ['start-up.ts', ['--rounds', '5']],
  ['adopt.ts', ['--rounds', '6', '--starts', '5']],
  ['guard.ts', ['--rounds', '4', '--requests', '500']],
  ['fresh-connections.ts', ['--rounds', '4', '--requests', '500']],
  ['overload.ts', ['--seconds', '2']],
  ['timeline.ts', []],
  ['page.ts', ['--pairs', '8']],
];

let failed = false;
let tables = '';
for (const [file, short] of BENCHES) {
  const path = fileURLToPath(new URL(file, import.meta.url));
  const args = [...process.execArgv, path, ...(values.full ? [] : short)];
  const { status, stdout } = spawnSync(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  });
  process.stdout.write(stdout);
  tables += stdout.replaceAll(/^## /gm, '#### ').replaceAll(/\n{3,}/g, '\n\n');
  if (status !== 0) failed = true;
}
const [major] = process.versions.node.split('.');
if (!failed)
  writeResults(
    `figures on Node ${major}`,
    `### Figures on Node ${major}\n\nWritten by \`make bench\` on ${new Date().toISOString().slice(0, 10)}. Each table has its yardsticks, measured in turn with ours, and how far\n` +
      `the rounds were apart.\n${tables}`,
  );
process.exit(failed ? 1 : 0);
