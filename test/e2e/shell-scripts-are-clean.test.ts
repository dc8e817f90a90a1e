import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import t from 'tap';

const scripts = ['.ci/run', ...['deployment', 'test/support'].flatMap((dir) => scriptsIn(dir))];
const missing = spawnSync('shellcheck', ['--version']).error !== undefined;

function scriptsIn(dir: string): string[] {
  return readdirSync(dir)
    .filter((name) => name.endsWith('.sh'))
    .map((name) => `${dir}/${name}`);
}

t.test('shellcheck has nothing to say', { skip: missing && 'there is no shellcheck' }, async (t) => {
  t.ok(scripts.includes('deployment/manage-service.sh'));
  const { status, stdout } = spawnSync('shellcheck', scripts, { encoding: 'utf8' });
  t.equal(status, 0, stdout);
});
