import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { parseConfig } from '../../src/config/settings.ts';
import { type Deployment, manifest, manifests, podSettings } from '../support/manifests.ts';

const all = manifests();
const { spec } = manifest<Deployment>('Deployment');
const pod = spec.template.spec;
const [container] = pod.containers;

t.test('every file is named by a kustomization, and every name is a file', async (t) => {
  const kustomizations = all.filter(({ kind }) => kind === 'Kustomization' || kind === 'Component');
  const named = kustomizations.flatMap(({ file, resources = [], components = [] }) =>
    [...(resources as string[]), ...(components as string[])].map((name) => join(dirname(file), name)),
  );
  for (const name of named) t.ok(existsSync(join('deployment/kubernetes', name)), name);
  const used = new Set([...named, ...named.map((name) => join(name, 'kustomization.yaml'))]);
  for (const { file } of all) t.ok(used.has(file) || file.startsWith('overlays/'), `${file} is used`);
});

t.test('each kind is there, of an API version that is served today', async (t) => {
  const kinds = all
    .filter(({ file }) => !file.endsWith('kustomization.yaml'))
    .map(({ apiVersion, kind }) => `${apiVersion} ${kind}`);
  t.strictSame(kinds.sort(), [
    'apps/v1 Deployment',
    'autoscaling/v2 HorizontalPodAutoscaler',
    'monitoring.coreos.com/v1 ServiceMonitor',
    'networking.k8s.io/v1 NetworkPolicy',
    'policy/v1 PodDisruptionBudget',
    'v1 Namespace',
    'v1 Service',
    'v1 Service',
  ]);
});

t.test('a rollout takes no pod away before another one is ready', async (t) => {
  t.equal(spec.replicas, 2);
  t.strictSame(spec.strategy, { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } });
  t.match(manifest('PodDisruptionBudget'), { spec: { maxUnavailable: 1 } });
  t.match(manifest('HorizontalPodAutoscaler'), {
    spec: { scaleTargetRef: { kind: 'Deployment', name: 'master-agent' }, minReplicas: 2 },
  });
});

t.test('all that selects the pods finds them, by labels and by names of ports', async (t) => {
  const { labels } = spec.template.metadata;
  for (const selector of [
    spec.selector.matchLabels,
    manifest<{ spec: { selector: object } }>('Service').spec.selector,
    manifest<{ spec: { selector: object } }>('Service', 'master-agent-operator').spec.selector,
    manifest<{ spec: { selector: { matchLabels: object } } }>('PodDisruptionBudget').spec.selector
      .matchLabels,
    manifest<{ spec: { podSelector: { matchLabels: object } } }>('NetworkPolicy').spec.podSelector
      .matchLabels,
  ]) {
    t.match(labels, selector);
  }
  const { port, opsPort } = parseConfig(podSettings());
  t.match(container.ports, [
    { name: 'http', containerPort: port },
    { name: 'operator', containerPort: opsPort },
  ]);
  const text = JSON.stringify(all);
  const used = [...text.matchAll(/"(?:targetPort|port)":"(\w+)"/g)].map(([, name]) => name);
  t.strictSame([...new Set(used)].sort(), ['http', 'operator']);
});

t.test('the probes ask the ops server; one that drains is not ready, but alive', async (t) => {
  const { startupProbe, readinessProbe, livenessProbe } = container;
  t.match(startupProbe.httpGet, { path: '/readyz', port: 'operator' });
  t.match(readinessProbe.httpGet, { path: '/readyz', port: 'operator' });
  t.match(livenessProbe.httpGet, { path: '/livez', port: 'operator' });
  const { startTimeoutMs, opsHost } = parseConfig(podSettings());
  t.ok(startupProbe.periodSeconds * startupProbe.failureThreshold * 1000 > startTimeoutMs);
  t.equal(opsHost, '0.0.0.0', 'where the kubelet gets at it');
  t.match(manifest('NetworkPolicy'), { spec: { ingress: [{ ports: [{ port: 'http' }] }, { from: Array }] } });
});

t.test('the pod is what the restricted standard asks for', async (t) => {
  t.match(pod.securityContext, {
    runAsNonRoot: true,
    runAsUser: 1000,
    seccompProfile: { type: 'RuntimeDefault' },
  });
  t.strictSame(container.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
  });
  t.equal(pod.automountServiceAccountToken, false);
  t.match(manifest('Namespace'), {
    metadata: { labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } },
  });
  t.match(container.resources, { requests: { cpu: String, memory: String }, limits: { memory: String } });
  for (const { name, ...source } of pod.volumes)
    t.ok(['emptyDir', 'secret'].includes(Object.keys(source)[0] ?? ''), name);
});

t.test('secrets are referred to, never there', async (t) => {
  const settings = podSettings();
  t.notOk(all.some(({ kind }) => kind === 'Secret'));
  t.equal(settings.ADMIN_TOKEN, undefined);
  t.match(pod.volumes, [{ name: 'state' }, { secret: { secretName: 'master-agent-admin' } }]);
  const mount = container.volumeMounts.find(({ name }) => name === 'admin-token');
  t.equal(settings.ADMIN_TOKEN_FILE, `${mount?.mountPath}/admin-token`);
});

t.test('what must outlive the container, the latch first, is on a volume', async (t) => {
  const mount = container.volumeMounts.find(({ mountPath }) => mountPath === podSettings().STATE_DIR);
  t.ok(pod.volumes.some(({ name, emptyDir }) => name === mount?.name && emptyDir !== undefined));
});
