import { resolve } from 'node:path';
import t from 'tap';
import ts from 'typescript';
import { parseConfig } from '../../src/config/settings.ts';
import { type Deployment, type Manifest, manifests, ofKind, rendered } from '../support/manifests.ts';

const OVERLAYS = ['production', 'guard', 'guard-sidecar'];
const LIMIT_MS = 120_000;
t.setTimeout(LIMIT_MS);

type Document = Pick<Manifest, 'apiVersion' | 'kind'>;

const shipped = manifests()
  .filter(({ file }) => !file.endsWith('kustomization.yaml'))
  .map(({ file: _, ...document }) => document);

t.test('each file fits the schema of its kind', async (t) => {
  t.ok(shipped.length > 0);
  for (const document of shipped) t.equal(await misfit(document), undefined, document.kind);
});

t.test('no file has a field that its kind does not know', async (t) => {
  t.strictSame(unknownFields(shipped), []);
});

for (const overlay of OVERLAYS) {
  const documents = rendered(overlay);
  const { spec } = ofKind<Deployment>(documents, 'Deployment');
  const pod = spec.template.spec;
  const settings = ofKind<{ metadata: { name: string }; data: Record<string, string> }>(
    documents,
    'ConfigMap',
  );

  t.test(`what kubectl renders of ${overlay} fits too`, async (t) => {
    t.strictSame(documents.map(({ kind }) => kind).sort(), [
      ...[
        'ConfigMap',
        'Deployment',
        'HorizontalPodAutoscaler',
        'Namespace',
        'NetworkPolicy',
        'PodDisruptionBudget',
      ],
      ...['Service', 'Service', 'ServiceMonitor'],
    ]);
    for (const document of documents) t.equal(await misfit(document), undefined, document.kind);
    t.strictSame(unknownFields(documents), []);
  });

  t.test(
    `what is rendered of ${overlay} is in one namespace, and its pods find their settings`,
    async (t) => {
      for (const { kind, metadata } of documents as unknown as {
        kind: string;
        metadata: { namespace?: string };
      }[]) {
        if (kind !== 'Namespace') t.equal(metadata.namespace, 'master-agent', kind);
      }
      t.match(pod.containers[0].envFrom, [{ configMapRef: { name: settings.metadata.name } }]);
      t.doesNotThrow(() => parseConfig({ ...settings.data, ADMIN_TOKEN_FILE: '' }));
    },
  );

  t.test(
    `all containers of ${overlay} are what the restricted standard asks for, and have limits`,
    async (t) => {
      for (const { name, securityContext, resources } of pod.containers) {
        t.match(securityContext, { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } }, name);
        t.match(resources, { requests: { cpu: String, memory: String }, limits: { memory: String } }, name);
      }
    },
  );
}

t.test('a program in the container of its gate is told by its parent', async (t) => {
  const documents = rendered('guard');
  const { containers } = ofKind<Deployment>(documents, 'Deployment').spec.template.spec;
  t.match(containers, [{ name: 'master-agent', image: /^shop:/, args: ['guard'] }]);
  t.equal(containers.length, 1);
  const { data } = ofKind<{ data: Record<string, string> }>(documents, 'ConfigMap');
  t.match(JSON.parse(data.GUARD_COMMAND ?? ''), ['uvicorn']);
});

t.test(
  'a program beside its gate is where the gate looks for it, and the gate alone is in reach',
  async (t) => {
    const documents = rendered('guard-sidecar');
    const { containers } = ofKind<Deployment>(documents, 'Deployment').spec.template.spec;
    t.match(containers, [
      { name: 'master-agent', image: /^master-agent:/, args: ['guard'] },
      { name: 'program', image: /^shop:/ },
    ]);
    const { data } = ofKind<{ data: Record<string, string> }>(documents, 'ConfigMap');
    const { guardPort, guardCommand, port, opsPort } = parseConfig({ ...data, ADMIN_TOKEN_FILE: '' });
    t.equal(guardCommand, undefined);
    t.match(containers[1]?.args?.join(' '), `--host 127.0.0.1 --port ${guardPort}`);
    t.notOk([port, opsPort].includes(guardPort), 'the containers of a pod share one address');
    const hook = containers[1]?.lifecycle.preStop.exec.command.join(' ');
    t.match(hook, `:${Number(opsPort).toString(16).toUpperCase()} `, 'the hook looks at the ops server');
  },
);

t.test('a wrong value and an unknown field are found', async (t) => {
  const deployment = shipped.find(({ kind }) => kind === 'Deployment') as Document & { spec: object };
  t.match(
    await misfit({ ...deployment, spec: { ...deployment.spec, replicas: 'two' } } as Document),
    'integer',
  );
  t.match(unknownFields([{ ...deployment, spec: { ...deployment.spec, replica: 2 } } as Document]), [
    /replica/,
  ]);
});

/** The package with the schemas and types of a kind. */
function moduleOf({ apiVersion, kind }: Document): string {
  const models = apiVersion.startsWith('monitoring.coreos.com/')
    ? '@kubernetes-models/prometheus-operator'
    : 'kubernetes-models';
  return `${models}/${apiVersion}/${kind}`;
}

/** What the API's JSON schema of its kind has against a document. */
async function misfit(document: Document): Promise<string | undefined> {
  const { [document.kind]: Model } = await import(moduleOf(document));
  try {
    new Model(document).validate();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/**
 * The schemas allow fields they do not know, as the API server does, which drops them: a misspelled one has no effect.
 * The types made from the same schemas do not, for an object that is written out.
 */
function unknownFields(documents: readonly Document[]): string[] {
  const file = resolve('manifests-as-typescript.ts');
  const text = documents
    .map(
      (document, index) =>
        `import type { I${document.kind} as I${index} } from '${moduleOf(document)}';\n` +
        `export const m${index}: I${index} = ${JSON.stringify(document)};\n`,
    )
    .join('');
  const options: ts.CompilerOptions = {
    module: ts.ModuleKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    types: [],
  };
  const host = ts.createCompilerHost(options);
  const read = host.getSourceFile.bind(host);
  host.getSourceFile = (name, ...rest) =>
    name === file ? ts.createSourceFile(name, text, ts.ScriptTarget.ES2022) : read(name, ...rest);
  const program = ts.createProgram([file], options, host);
  return ts
    .getPreEmitDiagnostics(program)
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
}
