import { readFileSync } from 'node:fs';
import { parse } from 'yaml';

interface Service {
  readonly build: { readonly context: string; readonly dockerfile: string };
  readonly environment: Readonly<Record<string, string>>;
  readonly secrets: readonly string[];
  readonly volumes: readonly string[];
  readonly stop_grace_period: string;
  readonly restart: string;
  readonly read_only: boolean;
  readonly cap_drop: readonly string[];
  readonly security_opt: readonly string[];
}

interface Compose {
  readonly services: { readonly 'master-agent': Service };
  readonly volumes: object;
  readonly secrets: Readonly<Record<string, { readonly file: string }>>;
}

/** The shipped compose file. */
export function compose(): { file: Compose; service: Service & { readonly stopSeconds: number } } {
  const file: Compose = parse(readFileSync('deployment/docker-compose.yml', 'utf8'));
  const service = file.services['master-agent'];
  const stopSeconds = Number(/^(\d+)s$/.exec(service.stop_grace_period)?.[1]);
  return { file, service: { ...service, stopSeconds } };
}
