import { execFileSync, spawnSync } from 'node:child_process';
import t from 'tap';
import { INSTALL } from '../support/need.ts';

/** Tenths of what `systemd-analyze security` says: 1.1. Node needs the Internet, AF_UNIX for systemd, and its JIT. */
const EXPOSURE = 11;
const UNIT = 'deployment/master-agent.service';

const version = spawnSync('systemd-analyze', ['--version'], { encoding: 'utf8' }).stdout;
const major = Number(/^systemd (\d+)/.exec(version ?? '')?.[1]);
if (!(major >= 252)) throw new Error(`want systemd-analyze of systemd 252 or later: ${INSTALL.systemd}`);

t.test('its exposure is no worse than the recorded one', async (t) => {
  const analyze = (threshold: number) =>
    spawnSync(
      'systemd-analyze',
      ['security', '--no-pager', '--offline=yes', `--threshold=${threshold}`, UNIT],
      { encoding: 'utf8' },
    );
  const { status, stdout } = analyze(EXPOSURE);
  t.equal(status, 0, stdout.trim().split('\n').at(-1) ?? '');
  t.not(analyze(EXPOSURE - 1).status, 0, 'when it has become better, record that');
});

t.test('that of the unit for any program is no worse than the recorded one', async (t) => {
  const { status, stdout } = spawnSync(
    'systemd-analyze',
    [
      'security',
      '--no-pager',
      '--offline=yes',
      `--threshold=${EXPOSURE}`,
      'deployment/master-agent-guard@.service',
    ],
    { encoding: 'utf8' },
  );
  t.equal(status, 0, stdout.trim().split('\n').at(-1) ?? '');
});

t.test('systemd finds nothing to complain of in the units', async (t) => {
  // Its programs are where they are installed, not here.
  const known = /Command \/\S+ is not executable|docs? .*man|Failed to open/;
  const { stderr } = spawnSync(
    'systemd-analyze',
    ['verify', '--man=no', UNIT, 'deployment/master-agent.socket', 'deployment/master-agent-guard@.service'],
    {
      encoding: 'utf8',
    },
  );
  t.strictSame(
    stderr.split('\n').filter((line) => line.includes('master-agent') && !known.test(line)),
    [],
  );
});

t.test('what it grants for a stop is what the service is told', async (t) => {
  const unit = execFileSync('cat', [UNIT], { encoding: 'utf8' });
  const granted = /^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1];
  t.equal(/STOP_BUDGET=(\d+)/.exec(unit)?.[1], granted);
  t.ok(Number(granted) >= 30 + 5, 'SHUTDOWN_TIMEOUT and the flush fit in');
});
