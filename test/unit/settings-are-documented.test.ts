import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { helpText } from '../../src/cli/help.ts';
import { SETTINGS } from '../../src/config/settings.ts';
import { ROOT } from '../support/root.ts';

interface Row {
  readonly name: string;
  readonly value: string;
  readonly help: string;
  readonly commented: boolean;
}

const lines = readFileSync(join(ROOT, '.env.example'), 'utf8').trimEnd().split('\n');

const rows: readonly Row[] = lines.flatMap((line) => {
  const [, hash, name = '', value = '', help = ''] = /^(# )?([A-Z_]+)=(\S*)\s+# (.*)$/.exec(line) ?? [];
  return name === '' ? [] : [{ name, value, help, commented: hash !== undefined }];
});

t.test('.env.example has every setting and no other, in the same order', async (t) => {
  t.strictSame(
    rows.map(({ name }) => name),
    SETTINGS.map(({ name }) => name),
  );
  t.strictSame(
    lines.filter((line) => !rows.some(({ name }) => line.includes(`${name}=`)) && !line.startsWith('# ')),
    [],
    'and nothing else but comments',
  );
});

t.test('each with its default, its words, its unit, and a mark when it is live', async (t) => {
  for (const [index, { name, fallback, unit = '', help, change }] of SETTINGS.entries()) {
    const words = `${help}${unit === '' ? '' : ` In ${unit}.`}${change === 'reload' ? ' *' : ''}`;
    t.strictSame(rows[index], { name, value: fallback, help: words, commented: fallback === '' }, name);
  }
});

t.test('--help lists every setting with its default, its unit and a mark when it is live', async (t) => {
  const text = helpText();
  for (const { name, fallback, unit = '', help, change } of SETTINGS) {
    const row = text.split('\n').find((line) => line.trimStart().split(/[* ]/)[0] === name);
    const value = fallback === '' ? 'unset' : `${fallback}${unit === '' ? '' : ` ${unit}`}`;
    t.equal(row?.replaceAll(/ +/g, ' '), ` ${name}${change === 'reload' ? '*' : ''} ${value} ${help}`);
  }
  for (const part of ['SIGTERM', 'SIGHUP', 'stop ', 'status ', '78 bad configuration']) t.match(text, part);
});
