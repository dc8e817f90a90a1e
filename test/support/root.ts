import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout. Searched upwards, because the compiled tests are one folder deeper than their sources. */
export const ROOT = find(dirname(fileURLToPath(import.meta.url)));

function find(dir: string): string {
  return existsSync(join(dir, 'package.json')) ? dir : find(dirname(dir));
}
