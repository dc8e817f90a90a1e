import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'dotenv';
import { parseAllDocuments, parse as parseYaml } from 'yaml';
import { INSTALL, need } from './need.ts';

const DIR = 'deployment/kubernetes';

export interface Probe {
  readonly httpGet: { readonly path: string; readonly port: string };
  readonly periodSeconds: number;
  readonly timeoutSeconds: number;
  readonly failureThreshold: number;
}

interface Container {
  readonly name: string;
  readonly image: string;
  readonly args?: readonly string[];
  readonly envFrom: readonly { readonly configMapRef: { readonly name: string } }[];
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
  readonly lifecycle: { readonly preStop: { readonly sleep: { readonly seconds: number } } };
  readonly startupProbe: Probe;
  readonly readinessProbe: Probe;
  readonly livenessProbe: Probe;
  readonly resources: Readonly<Record<'requests' | 'limits', Readonly<Record<string, string>>>>;
  readonly securityContext: object;
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
}

/** The container of a program beside that of its gate. */
export interface ProgramContainer
  extends Pick<Container, 'name' | 'image' | 'args' | 'resources' | 'securityContext'> {
  readonly lifecycle: { readonly preStop: { readonly exec: { readonly command: readonly string[] } } };
}

/** What the tests read of a Deployment. */
export interface Deployment {
  readonly spec: {
    readonly replicas: number;
    readonly strategy: {
      readonly type: string;
      readonly rollingUpdate: { readonly maxUnavailable: number; readonly maxSurge: number };
    };
    readonly selector: { readonly matchLabels: object };
    readonly template: {
      readonly metadata: { readonly labels: object };
      readonly spec: {
        readonly terminationGracePeriodSeconds: number;
        readonly automountServiceAccountToken: boolean;
        readonly securityContext: object;
        readonly containers: readonly [Container, ...ProgramContainer[]];
        readonly volumes: readonly ({ readonly name: string } & Readonly<Record<string, unknown>>)[];
      };
    };
  };
}

export interface Manifest {
  readonly file: string;
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata?: { readonly name: string; readonly labels?: Readonly<Record<string, string>> };
  readonly [field: string]: unknown;
}

/** Every document in every file. @throws when one is not YAML */
export function manifests(): Manifest[] {
  return readdirSync(DIR, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.yaml'))
    .sort()
    .flatMap((file) =>
      parseAllDocuments(readFileSync(join(DIR, file), 'utf8')).map((document) => {
        const [error] = document.errors;
        if (error !== undefined) throw error;
        return { file, ...document.toJS() };
      }),
    );
}

export function manifest<T>(kind: string, name = 'master-agent'): T {
  const found = manifests().filter((one) => one.kind === kind && one.metadata?.name === name);
  if (found.length !== 1) throw new Error(`want one ${kind} ${name}, got ${found.length}`);
  return found[0] as T;
}

/** What the pods have in their environment. */
export function podSettings(): Record<string, string> {
  return parse(readFileSync(join(DIR, 'base/settings.env'), 'utf8'));
}

/** The patch of the Deployment that an overlay has: the fields that it changes. */
export function overlayPatch(overlay: string): Deployment {
  const file = join(DIR, 'overlays', overlay, 'kustomization.yaml');
  return parseYaml(parseYaml(readFileSync(file, 'utf8')).patches[0].patch);
}

/** What `kubectl apply -k` would send. @throws when it cannot be rendered */
export function rendered(overlay: string): Manifest[] {
  need('kubectl', INSTALL.kubectl, 'version');
  const { status, stdout, stderr } = spawnSync('kubectl', ['kustomize', join(DIR, 'overlays', overlay)], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`kubectl kustomize overlays/${overlay} ended with ${status}: ${stderr}`);
  return parseAllDocuments(stdout).map((document) => document.toJS());
}

/** The one of this kind. @throws when there is none */
export function ofKind<T>(documents: readonly Manifest[], kind: string): T {
  const found = documents.find((document) => document.kind === kind);
  if (found === undefined) throw new Error(`want a ${kind}, got none`);
  return found as T;
}
