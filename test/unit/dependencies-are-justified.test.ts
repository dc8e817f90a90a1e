import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ROOT } from '../support/root.ts';

interface Package {
  readonly engines?: { readonly node?: string };
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const manifest: Package = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
const lock: { packages: Readonly<Record<string, Package>> } = JSON.parse(
  readFileSync(join(ROOT, 'package-lock.json'), 'utf8'),
);

type Version = readonly [number, number, number];

/** Such a range as packages have in `engines`: alternatives of comparators, an operator and one to three numbers. */
function allows(range: string, version: Version): boolean {
  return range.split('||').some((alternative) =>
    [...alternative.matchAll(/([<>=^~]*)\s*v?(\d+)(?:\.(\d+|x))?(?:\.(\d+|x))?|\*/g)].every(
      ([all, operator, major, minor, patch]) => {
        if (all === '*') return true;
        const wanted: Version = [Number(major), Number(minor) || 0, Number(patch) || 0];
        const order = compare(version, wanted);
        if (operator === '>=') return order >= 0;
        if (operator === '>') return order > 0;
        if (operator === '<') return order < 0;
        if (operator === '<=') return order <= 0;
        if (operator === '^') return order >= 0 && version[0] === wanted[0];
        if (operator === '~') return order >= 0 && version[0] === wanted[0] && version[1] === wanted[1];
        return version[0] === wanted[0] && (minor === undefined || minor === 'x' || version[1] === wanted[1]);
      },
    ),
  );
}

function compare(a: Version, b: Version): number {
  return a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
}

t.test('no dependency wants a newer Node than we do', async (t) => {
  const [, major, minor = '0'] = /^>=(\d+)(?:\.(\d+))?$/.exec(manifest.engines?.node ?? '') ?? [];
  const oldest: Version = [Number(major), Number(minor), 0];
  t.ok(oldest[0] >= 20, manifest.engines?.node ?? 'no engines');
  const ranges = Object.entries(lock.packages).map(([path, { engines }]) => ({ path, node: engines?.node }));
  t.ok(ranges.length > 100 && ranges.filter(({ node }) => node !== undefined).length > 50);
  t.strictSame(
    ranges.filter(({ node }) => node !== undefined && !allows(node, oldest)),
    [],
  );
});

t.test('ranges are read as npm reads them', async (t) => {
  for (const range of [
    '>=20',
    '>= 18',
    '>=20.19',
    '^20.17.0 || >=22.9.0',
    '18 || 20 || >=22',
    '>=6.0.0 <23',
    '*',
  ])
    t.equal(allows(range, [20, 19, 0]), true, range);
  for (const range of ['>=22', '^20.20.0 || >=22', '18 || 22', '>=20.19.1', '<20', '^18.1', '~20.18.0'])
    t.equal(allows(range, [20, 19, 0]), false, range);
});

t.test('the README says why each dependency is there', async (t) => {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
  const section = readme.slice(readme.indexOf('\n## Dependencies'));
  const { dependencies, optionalDependencies, devDependencies } = manifest;
  const names = Object.keys({ ...dependencies, ...optionalDependencies, ...devDependencies });
  // Types come with the package they describe.
  for (const name of names.filter((name) => !name.startsWith('@types/')))
    t.match(section, `\`${name}\``, name);
});

t.test('the lock names no registry', async (t) => {
  t.notMatch(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'), '"resolved"');
});
