import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import t from 'tap';
import ts from 'typescript';
import { parseAllDocuments } from 'yaml';
import { type Manifest, manifests } from '../support/manifests.ts';
import { INSTALL, need } from '../support/need.ts';

const OVERLAY = 'deployment/kubernetes/overlays/production';
const LIMIT_MS = 120_000;
t.setTimeout(LIMIT_MS);

type Document = Pick<Manifest, 'apiVersion' | 'kind'>;

need('kubectl', INSTALL.kubectl, 'version');
const kubectl = spawnSync('kubectl', ['kustomize', OVERLAY], { encoding: 'utf8' });
const shipped = manifests()
  .filter(({ file }) => !file.endsWith('kustomization.yaml'))
  .map(({ file: _, ...document }) => document);
const rendered: Document[] = parseAllDocuments(kubectl.stdout ?? '').map((document) => document.toJS());

t.test('each file fits the schema of its kind', async (t) => {
  t.ok(shipped.length > 0);
  for (const document of shipped) t.equal(await misfit(document), undefined, document.kind);
});

t.test('no file has a field that its kind does not know', async (t) => {
  t.strictSame(unknownFields(shipped), []);
});

t.test('what kubectl renders fits too', async (t) => {
  t.equal(kubectl.status, 0, kubectl.stderr);
  t.strictSame(rendered.map(({ kind }) => kind).sort(), [
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
  for (const document of rendered) t.equal(await misfit(document), undefined, document.kind);
  t.strictSame(unknownFields(rendered), []);
});

t.test('what is rendered is in one namespace, and its pods find their settings', async (t) => {
  for (const document of rendered as unknown as { kind: string; metadata: { namespace?: string } }[]) {
    if (document.kind !== 'Namespace') t.equal(document.metadata.namespace, 'master-agent', document.kind);
  }
  const settings = rendered.find(({ kind }) => kind === 'ConfigMap') as unknown as {
    metadata: { name: string };
  };
  t.match(
    rendered.find(({ kind }) => kind === 'Deployment'),
    {
      spec: {
        template: {
          spec: { containers: [{ envFrom: [{ configMapRef: { name: settings.metadata.name } }] }] },
        },
      },
    },
  );
});

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
