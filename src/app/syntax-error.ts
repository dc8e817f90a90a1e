import { spawnSync } from 'node:child_process';
import { pathToFileURL } from 'node:url';

/** How long the search may take: it holds up a start that has failed. */
const SEARCH_MS = 5_000;

/** Parses a module and the files it imports, and runs none of them. Ends with the first that cannot be parsed. */
const PARSE_ALL = `
import { readFileSync } from 'node:fs';
import { SourceTextModule } from 'node:vm';
const seen = new Set();
const parse = (url) => {
  if (seen.has(url) || !/^file:.*\\.m?js$/.test(url)) return;
  seen.add(url);
  const module = new SourceTextModule(readFileSync(new URL(url), 'utf8'), { identifier: url });
  const imports = module.moduleRequests?.map(({ specifier }) => specifier) ?? module.dependencySpecifiers;
  for (const specifier of imports) if (/^[./]/.test(specifier)) parse(new URL(specifier, url).href);
};
parse(process.argv[1]);
`;

/**
 * The file and the line of a syntax error that importing a module has failed with; undefined when they are not found.
 * Node prints them for an error that ends its process, and for most it tells them nowhere else.
 */
export function placeOfSyntaxError(path: string, { message, stack = '' }: SyntaxError): string | undefined {
  const known = placeIn(stack);
  if (known !== undefined) return known;
  const args = ['--no-warnings', '--experimental-vm-modules', '--input-type=module', '--eval', PARSE_ALL];
  const env = { ...process.env, NODE_OPTIONS: '' };
  const { stderr } = spawnSync(process.execPath, [...args, pathToFileURL(path).href], {
    encoding: 'utf8',
    timeout: SEARCH_MS,
    env,
  });
  // Null when it could not be started.
  const told = String(stderr);
  return told.includes(`\nSyntaxError: ${message}\n`) ? placeIn(told) : undefined;
}

function placeIn(text: string): string | undefined {
  return /^(?:file:|\/).*:\d+(?=\n)/.exec(text)?.[0];
}
