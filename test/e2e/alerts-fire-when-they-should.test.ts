import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { INSTALL, need } from '../support/need.ts';
import { tempDir } from '../support/service-process.ts';

const DIR = 'deployment/prometheus';
need('promtool', INSTALL.promtool);

function promtool(...args: string[]): { status: number | null; said: string } {
  const { status, stdout, stderr } = spawnSync('promtool', args, { encoding: 'utf8' });
  return { status, said: stdout + stderr };
}

t.test('promtool finds nothing wrong with the rules and the scrape configuration', async (t) => {
  for (const args of [
    ['check', 'rules', '--lint-fatal', `${DIR}/alerts.yml`],
    ['check', 'config', `${DIR}/prometheus.yml`],
  ]) {
    const { status, said } = promtool(...args);
    t.equal(status, 0, said);
  }
});

t.test('each alert fires when it should, and not for what looks like it', async (t) => {
  const { status, said } = promtool('test', 'rules', `${DIR}/alerts.test.yml`);
  t.equal(status, 0, said);
});

t.test('and would be missed: without it a test fails', async (t) => {
  const dir = tempDir(t);
  const rules = readFileSync(`${DIR}/alerts.yml`, 'utf8');
  const tests = join(dir, 'alerts.test.yml');
  writeFileSync(tests, readFileSync(`${DIR}/alerts.test.yml`));
  const names = [...rules.matchAll(/- alert: (\w+)$/gm)].map(([, name]) => name ?? '');
  t.ok(names.length >= 10);
  for (const name of names) {
    writeFileSync(join(dir, 'alerts.yml'), rules.replace(`alert: ${name}\n`, 'alert: Another\n'));
    t.not(promtool('test', 'rules', tests).status, 0, name);
  }
});
