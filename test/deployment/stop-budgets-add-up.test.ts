import { readFileSync } from 'node:fs';
import pino from 'pino';
import t, { type Test } from 'tap';
import { parseConfig } from '../../src/config/settings.ts';
import { checkStopBudget } from '../../src/control/stop-budget.ts';
import { compose } from '../support/compose.ts';
import { type Deployment, manifest, overlayPatch, podSettings } from '../support/manifests.ts';

/** The platform kills when it is over, so it ends a little later than the service can take. */
const SPARE_SECONDS = 2;
/** What many programs take for their own shutdown. */
const PROGRAM_SECONDS = 10;

/** What the service itself says of its settings at a start. */
function complaints(settings: Readonly<Record<string, string>>): string {
  let said = '';
  const write = (line: string): void => {
    said += line;
  };
  checkStopBudget(parseConfig(settings), pino({ base: null }, { write }));
  return said;
}

/** @param granted seconds from SIGTERM to SIGKILL */
function assertFits(t: Test, granted: number, settings: Readonly<Record<string, string>>): void {
  t.equal(settings.STOP_BUDGET, String(granted), 'the service is told what it is granted');
  t.equal(complaints(settings), '', 'and has nothing to say');
  t.equal(
    complaints({ ...settings, STOP_BUDGET: String(granted - SPARE_SECONDS) }),
    '',
    'with a little to spare',
  );
}

t.test('Kubernetes: the grace period covers the preStop hook, too', async (t) => {
  const { terminationGracePeriodSeconds, containers } = manifest<Deployment>('Deployment').spec.template.spec;
  const preStop = containers[0].lifecycle.preStop.sleep.seconds;
  t.ok(preStop > 0);
  assertFits(t, terminationGracePeriodSeconds - preStop, podSettings());
});

t.test('Kubernetes: a program in a container of its own has time when its gate has gone', async (t) => {
  const { spec } = manifest<Deployment>('Deployment').spec.template;
  const beside = overlayPatch('guard-sidecar').spec.template.spec.terminationGracePeriodSeconds;
  t.ok(beside >= spec.terminationGracePeriodSeconds + PROGRAM_SECONDS, `${beside} s`);
  const inside = overlayPatch('guard').spec.template.spec.terminationGracePeriodSeconds;
  t.equal(inside, undefined, 'its own stop is a part of the gate');
});

t.test('systemd', async (t) => {
  for (const file of ['master-agent.service', 'master-agent-guard@.service']) {
    const unit = readFileSync(`deployment/${file}`, 'utf8');
    const settings = [...unit.matchAll(/^Environment=(.*)$/gm)].flatMap(([, line]) => line?.split(' ') ?? []);
    const granted = Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1]);
    assertFits(t, granted, Object.fromEntries(settings.map((setting) => setting.split('=', 2))));
  }
});

t.test('one that does not add up is found', async (t) => {
  t.match(complaints({ ...podSettings(), SHUTDOWN_TIMEOUT: '36' }), 'a stop can take 41s');
  t.match(complaints({ ...podSettings(), SHUTDOWN_DELAY: '6' }), 'a stop can take 41s');
});

t.test('Docker', async (t) => {
  const { service } = compose();
  assertFits(t, service.stopSeconds, service.environment);
});
