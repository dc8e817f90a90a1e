import { existsSync } from 'node:fs';
import { CODE } from '../version.ts';
import { complain } from './help.ts';

/** `master-agent conformance`: judges how any HTTP server stops. The build packs the suite into one file. */
export async function run(args: readonly string[]): Promise<number> {
  const file = new URL('conformance.js', CODE);
  if (!existsSync(file))
    return complain('conformance: this build has no suite; npm run build:conformance adds it');
  const suite: { run(args: readonly string[]): Promise<number> } = await import(file.href);
  return suite.run(args);
}
