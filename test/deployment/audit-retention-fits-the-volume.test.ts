import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { parseConfig } from '../../src/config/settings.ts';
import { compose } from '../support/compose.ts';
import { type Deployment, manifest, podSettings } from '../support/manifests.ts';

const MIB = 2 ** 20;
/**
 * Room beside the log: for a file that grows past AUDIT_MAX_BYTES between two looks at its size, for torn ends that are
 * set aside, and for the latch and the reports.
 */
const SLACK_BYTES = 128 * MIB;

/** What the audit log takes at most; Infinity when it does not rotate. */
function retentionBytes(settings: Readonly<Record<string, string>>): number {
  const { auditMaxBytes, auditKeep } = parseConfig(settings);
  return auditMaxBytes === 0 ? Number.POSITIVE_INFINITY : (auditKeep + 1) * auditMaxBytes;
}

/** @param quantity as Kubernetes writes it: `512Mi`, `1Gi` */
function bytesOf(quantity: string): number {
  const [, digits, unit] = /^(\d+)(Mi|Gi)$/.exec(quantity) ?? [];
  if (digits === undefined) throw new Error(`want a quantity in Mi or Gi, got ${quantity}`);
  return Number(digits) * (unit === 'Gi' ? 1024 * MIB : MIB);
}

function fits(settings: Readonly<Record<string, string>>, limitBytes: number): boolean {
  return retentionBytes(settings) + SLACK_BYTES <= limitBytes;
}

/** The figure, in MiB, that the comment beside the settings gives. */
function assertCommentIsRight(t: Test, file: string, settings: Readonly<Record<string, string>>): void {
  const [, told] =
    /\(AUDIT_KEEP \+ 1\) \* AUDIT_MAX_BYTES = (\d+) MiB/.exec(readFileSync(file, 'utf8')) ?? [];
  t.equal(Number(told) * MIB, retentionBytes(settings), `${file} gives the figure`);
}

t.test('Kubernetes: the pod is not evicted because its volume outgrows the limit', async (t) => {
  const settings = podSettings();
  const { containers, volumes } = manifest<Deployment>('Deployment').spec.template.spec;
  const mount = containers[0].volumeMounts.find(({ mountPath }) => mountPath === settings.STATE_DIR);
  const volume = volumes.find(({ name }) => name === mount?.name);
  const { sizeLimit = '' } = (volume?.emptyDir ?? {}) as { sizeLimit?: string };
  t.ok(fits(settings, bytesOf(sizeLimit)), `${retentionBytes(settings)} of ${sizeLimit}`);
  assertCommentIsRight(t, 'deployment/kubernetes/base/settings.env', settings);
  const { AUDIT_MAX_BYTES: _, AUDIT_KEEP: __, ...defaults } = settings;
  t.notOk(fits(defaults, bytesOf(sizeLimit)), 'the defaults do not fit, which is why the settings are there');
});

t.test('Docker: the volume has no limit, so the settings bound what it takes of the disk', async (t) => {
  const { file, service } = compose();
  t.strictSame(file.volumes, { state: {} }, 'a limit would have to be compared here');
  t.ok(retentionBytes(service.environment) < 1024 * MIB);
  assertCommentIsRight(t, 'deployment/docker-compose.yml', service.environment);
});
