import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import t from 'tap';
import { need } from '../support/need.ts';

const scripts = [
  '.ci/run',
  ...['deployment', 'test/support', 'examples/postgres'].flatMap((dir) => scriptsIn(dir)),
];
need('shellcheck');

function scriptsIn(dir: string): string[] {
  return readdirSync(dir)
    .filter((name) => name.endsWith('.sh'))
    .map((name) => `${dir}/${name}`);
}

t.test('shellcheck has nothing to say', async (t) => {
  t.ok(scripts.includes('deployment/manage-service.sh'));
  const { status, stdout } = spawnSync('shellcheck', scripts, { encoding: 'utf8' });
  t.equal(status, 0, stdout);
});
