import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const RESULTS = fileURLToPath(new URL('RESULTS.md', import.meta.url));

/**
 * Replaces one part of RESULTS.md, which several benches write, and leaves the others as they are. A new part comes to
 * the end.
 * @param name stands in the comments around it
 */
export function writeResults(name: string, text: string): void {
  const before = readFileSync(RESULTS, 'utf8');
  const [begin, end] = [`<!-- ${name} -->\n`, `<!-- end of ${name} -->\n`];
  const part = `${begin}\n${text.trim()}\n\n${end}`;
  const [from, to] = [before.indexOf(begin), before.indexOf(end)];
  const after =
    from === -1 || to === -1
      ? `${before.trim()}\n\n${part}`
      : before.slice(0, from) + part + before.slice(to + end.length);
  writeFileSync(RESULTS, after);
}
