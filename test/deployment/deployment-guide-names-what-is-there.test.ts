import { existsSync, readdirSync, readFileSync } from 'node:fs';
import t from 'tap';

const guide = readFileSync('deployment/README.md', 'utf8');
const table = guide.slice(0, guide.indexOf('\n## '));

t.test('its table has every file and directory of deployment, and no other', async (t) => {
  const named = [...table.matchAll(/`([^`]+)`(?=[,` ].*\|)/g)].map(([, name = '']) =>
    name.replace(/\/$/, ''),
  );
  for (const name of readdirSync('deployment')) t.ok(name === 'README.md' || named.includes(name), name);
});

t.test('every path of deployment that it names is there', async (t) => {
  for (const [path] of guide.matchAll(/(?<!status |scale )deployment\/[\w./-]*\w/g))
    t.ok(existsSync(path), path);
});

t.test('the main README leads to it', async (t) => {
  t.match(readFileSync('README.md', 'utf8'), '`deployment/README.md`');
});
